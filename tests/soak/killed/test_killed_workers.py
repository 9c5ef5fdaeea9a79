"""Workers killed at random during outages of their store: nothing promised is lost, nothing removed comes back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from companion.runtime import Runtime, close_runtime, set_runtime
from tests.companion.processes import stop_fork_server
from tests.real.redis.redis_server import RedisServer
from tests.soak.killed.killed_workers import KilledWorkers
from tests.wait import until

pytestmark = pytest.mark.soak
_SECONDS = 5.0


@pytest.fixture
async def runtime(redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Runtime]:
    """The next start, on the store and the spool of the workers."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("COMPANION_HOME", str(tmp_path / "home"))
    runtime = set_runtime(Runtime())
    await runtime.store.get_profile("nobody")  # creates the file
    yield runtime
    await close_runtime()
    stop_fork_server()


async def test_nothing_promised_is_lost_and_nothing_removed_comes_back(
    runtime: Runtime, redis_server: RedisServer
) -> None:
    over, users = asyncio.Event(), ("killed-1", "killed-2")
    workers = KilledWorkers(users, runtime.settings.home, redis_server.url, random.Random(1))
    running = asyncio.create_task(workers.run(over.is_set))
    await asyncio.sleep(_SECONDS)
    over.set()
    await running
    assert workers.kills >= 2
    assert workers.promised > 20

    async def all_is_well() -> bool:
        await runtime.write_behind.spool_replay.replay()
        return not workers.broken_promises()

    try:
        await until(all_is_well, timeout=15)
    except AssertionError:
        assert workers.broken_promises() == []
    assert list((runtime.settings.home / "unstored").glob("*.jsonl")) == []
