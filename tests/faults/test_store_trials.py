"""Each kind of fault of the store, in one of its two places; ``make chaos`` has all of them in both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.store_trial import STORE_PLACES, StorePlace, store_trial
from tests.faults.store_world import STORE_FAULTS, StoreFault
from tests.real.postgres import Postgres
from tests.real.redis_server import RedisServer

pytestmark = [pytest.mark.faults, pytest.mark.serial]
ANSWERS = ("504", "HTML", "cut", "401", "500 ms", "broken row")
"""What the store makes of each of these is tested with the store; from there on they are all the same."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        pytest.param(fault, STORE_PLACES[number % 2], id=f"{fault} {STORE_PLACES[number % 2]}")
        for number, fault in enumerate(STORE_FAULTS)
        if not any(word in fault.name for word in ANSWERS)
    ],
)
async def test_nothing_that_was_said_is_lost(
    fault: StoreFault,
    place: StorePlace,
    tmp_path: Path,
    redis_server: RedisServer,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # importing the agent reads the .env of the working directory
    outcome = await store_trial(fault, place, tmp_path, redis_server, postgres, timeout=0.4)
    assert outcome.broken == [], outcome
