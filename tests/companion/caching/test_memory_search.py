"""Three workers, one store, one Redis: however invalidations are lost, no stale profile is served afterwards."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cache import get_redis_cache, keys
from companion import Caller, get_user_profile_async, use_caller
from companion.caching.outbox_relay import GRACE
from companion.runtime import Runtime
from companion.store import Memory, SqliteStore, StoreError
from tests.companion.caching import memory_worker
from tests.companion.processes import Worker
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration


Start = Callable[[], Awaitable[Worker]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "companion.db"


@pytest.fixture
async def start(path: Path, own_redis: RedisServer) -> AsyncIterator[Start]:
    settings = {"REDIS_URL": own_redis.url, "CACHE_DEADLINE_MS": "1000", "CACHE_CONNECT_WAIT_MS": "5000"}
    settings["COMPANION_HOME"] = str(path.parent)
    workers: list[Worker] = []

    async def start() -> Worker:
        worker = await asyncio.to_thread(Worker, memory_worker.work, path, settings)
        workers.append(worker)
        assert await worker.answer() == "ready"
        return worker

    yield start
    await asyncio.gather(*(worker.ended() for worker in workers))


async def together(workers: list[Worker], order: str) -> list[Any]:
    return await asyncio.gather(*(worker.do(order) for worker in workers))


async def test_three_workers_and_a_redis_restored_from_an_old_dump(start: Start, own_redis: RedisServer) -> None:
    workers = await asyncio.gather(start(), start(), start())
    first, second, _ = workers
    await first.do("save old")
    assert await together(workers, "read") == ["old"] * 3
    await until(lambda: own_redis.cli("GET", keys.system_server()))
    dump = await asyncio.to_thread(own_redis.dump)
    await second.do("save new")
    assert await together(workers, "read") == ["new"] * 3
    await together(workers, "watch")
    await asyncio.to_thread(own_redis.restore, dump)  # with the old profile in it, and nothing pending in the outbox
    late = await start()
    assert await late.do("read") == "new"
    await until(lambda: own_redis.cli("GET", keys.profile("ada")) == "new")
    assert await together(workers, "seen") == [["new"]] * 3


async def test_three_workers_of_which_one_dies_between_commit_and_invalidation(
    start: Start, own_redis: RedisServer, path: Path
) -> None:
    workers = await asyncio.gather(start(), start(), start())
    dying, *others = workers
    await dying.do("save old")
    assert await together(workers, "read") == ["old"] * 3
    assert await dying.do("save_and_die new") is None
    assert await dying.ended() == -signal.SIGKILL
    # The next relay delivers it after the grace period. Here that has passed.
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE outbox SET written_at = written_at - ?", (int((GRACE + 1) * 1e6),))
    store = SqliteStore(path)
    assert own_redis.cli("GET", keys.profile("ada")) == "old"
    late = await start()

    async def delivered() -> bool:
        return await store.pending_changes() == []

    await until(delivered)
    assert await together([*others, late], "read") == ["new"] * 3
    await store.close()


# -- redelivery ----------------------------------------------------------------------------------------------


async def test_recent_writes_are_redelivered(runtime: Runtime, redis_server: RedisServer) -> None:
    cache = await get_redis_cache()
    for user in ("ada", "bea"):
        await cache.set(keys.profile(user), "old", ttl=60)
    await runtime.store.save_profile("ada", "new")
    await runtime.store.acknowledge(await runtime.store.pending_changes())
    assert await runtime.outbox_relay.recent.redeliver() is True
    assert redis_server.cli("KEYS", "user:*") == [keys.profile("bea")]
    with use_caller(Caller("ada")):
        assert await get_user_profile_async() == "new"


async def test_too_many_rows_to_redeliver(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.caching.recent_changes.MAX_ROWS", 2)
    for user in ("ada", "bea"):
        await runtime.store.save_profile(user, "new")
    assert await runtime.outbox_relay.recent.redeliver() is True
    await runtime.store.save_profile("cleo", "new")
    assert await runtime.outbox_relay.recent.redeliver() is False


async def test_memories_are_redelivered_without_a_scan(runtime: Runtime, redis_server: RedisServer) -> None:
    for number in range(30):
        await runtime.store.add_memory(f"user{number}", Memory("x", datetime.now(UTC)))
    redis_server.cli("CONFIG", "RESETSTAT")
    assert await runtime.outbox_relay.recent.redeliver() is True
    assert redis_server.calls("scan") <= 1  # of the handshake


async def test_a_store_that_cannot_say(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(**_: object) -> None:
        raise StoreError("recent_changes", "timeout")

    monkeypatch.setattr(runtime.store, "recent_changes", fail)
    with pytest.raises(StoreError):
        await runtime.outbox_relay.recent.redeliver()  # and is read again
