"""Each kind of store fault in one of its two phases; ``make chaos`` runs all faults in both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.store.store_environment import STORE_FAULTS, StoreFault
from tests.faults.store.store_scenario import STORE_PHASES, StorePhase, run_store_scenario
from tests.real.redis.redis_server import RedisServer
from tests.real.supabase.postgres import Postgres

pytestmark = [pytest.mark.faults, pytest.mark.timed]
SAME_FOR_THE_WORKER = ("504", "HTML", "cut", "401", "500 ms", "broken row")
"""Faults that the store reports as the same error; the store's own tests tell them apart."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.mark.parametrize(
    ("fault", "phase"),
    [
        pytest.param(fault, STORE_PHASES[number % 2], id=f"{fault} {STORE_PHASES[number % 2]}")
        for number, fault in enumerate(STORE_FAULTS)
        if not any(word in fault.name for word in SAME_FOR_THE_WORKER)
    ],
)
async def test_no_user_turn_is_lost(
    fault: StoreFault,
    phase: StorePhase,
    tmp_path: Path,
    redis_server: RedisServer,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # importing the agent reads the .env of the working directory
    timeout = 0.2 if fault.kind == "SQLite" else 0.4  # a file answers sooner than an HTTP server and PostgreSQL
    result = await run_store_scenario(fault, phase, tmp_path, redis_server, postgres, timeout=timeout)
    assert result.violations == [], result
