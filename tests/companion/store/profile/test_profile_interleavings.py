"""Any interleaving of writers keeps each line that no author removed, and no line that one removed; in both stores."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from companion.store import SqliteStore, SupabaseStore
from tests.companion.store.profile.profile_interleaving import (
    Kind,
    Look,
    Pause,
    Restart,
    Save,
    Simulation,
    Step,
    Switch,
)
from tests.real.supabase.postgrest import PostgREST

pytestmark = pytest.mark.integration
TWO = st.integers(0, 1)
KINDS: list[Kind] = ["add", "add", "remove", "replace", "rewrite"]
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        Save,
        TWO,
        TWO,
        st.sampled_from(KINDS),
        st.integers(0, 9),
        st.booleans(),
    ),
    st.builds(Switch, TWO, st.sampled_from(["up", "away", "deaf", "slow"])),
    st.builds(Look, TWO, TWO),
    st.builds(Restart, TWO),
    st.builds(Pause),
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shorter waits: what is tested is the order of things."""
    monkeypatch.setattr("companion.writes.queue.FIRST_TRY", 0.02)
    monkeypatch.setattr("companion.writes.queue._BACKOFF", (0.002,))  # private: hundreds of outages in a second
    logging.getLogger("companion").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("companion").setLevel(logging.NOTSET)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=3, max_size=40))
def test_sqlite(steps: list[Step]) -> None:
    async def simulate(home: Path) -> None:
        simulation = Simulation(lambda: SqliteStore(home / "companion.db"), home / "home")
        try:
            await simulation.run(steps)
            await simulation.check()
        finally:
            await simulation.close()

    with TemporaryDirectory() as home:
        asyncio.run(simulate(Path(home)))


def random_steps(rng: random.Random, count: int) -> list[Step]:
    def step() -> Step:
        process, conversation = rng.randrange(2), rng.randrange(2)
        kinds: list[Step] = [
            Save(process, conversation, rng.choice(KINDS), rng.randrange(9), False),
            Save(process, conversation, rng.choice(KINDS), rng.randrange(9), True),
            Switch(process, rng.choice(["up", "up", "away", "deaf", "slow"])),
            Look(process, conversation),
            Restart(process),
            Pause(),
        ]
        return rng.choices(kinds, (4, 4, 2, 2, 1, 2))[0]

    return [step() for _ in range(count)]


@pytest.mark.parametrize("seed", range(6))
async def test_supabase(api: PostgREST, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str, seed: int) -> None:
    monkeypatch.setattr("tests.companion.store.profile.profile_interleaving.USER", user)
    simulation = Simulation(lambda: SupabaseStore(api.url, api.secret_key), tmp_path)
    try:
        await simulation.run(random_steps(random.Random(seed), 60))
        await simulation.check()
    finally:
        await simulation.close()
