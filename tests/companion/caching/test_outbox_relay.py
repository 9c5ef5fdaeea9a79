"""An invalidation that was not delivered survives its process, and the next relay delivers it."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import textwrap
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cache import get_redis_cache, keys
from cache.coherence.pending import PendingInvalidations, PendingPattern
from companion import Caller, get_user_profile_async, save_user_profile_async, use_caller
from companion.runtime import Runtime, close_runtime, set_runtime
from companion.store import PendingErasure, StoreError
from tests.inside import enqueue
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration


async def pending(runtime: Runtime) -> list[tuple[str, str]]:
    return [(one.user_id, one.kind) for one in await runtime.store.pending_changes()]


async def test_a_delivered_invalidation_is_acknowledged(runtime: Runtime) -> None:
    with use_caller(Caller("1")):
        await save_user_profile_async("Name: Ada")
    await runtime.outbox_relay.close()
    assert await pending(runtime) == []


async def test_killed_between_commit_and_invalidation(
    runtime: Runtime, redis_server: RedisServer, tmp_path: Path
) -> None:
    with use_caller(Caller("1")):
        await save_user_profile_async("old")
        assert await get_user_profile_async() == "old"
    await runtime.outbox_relay.close()
    script = textwrap.dedent(f"""
        import asyncio, os, signal
        from pathlib import Path
        from companion import Caller, save_user_profile_async, use_caller
        from companion.caching.outbox_relay import OutboxRelay
        from companion.runtime import Runtime, set_runtime
        from companion.store import SqliteStore

        async def die(self, user_id, *whats):
            os.kill(os.getpid(), signal.SIGKILL)

        OutboxRelay.invalidate_written = die

        async def main():
            set_runtime(Runtime(store=SqliteStore(Path({str(tmp_path / "store" / "companion.db")!r}))))
            with use_caller(Caller("1")):
                await save_user_profile_async("new")

        asyncio.run(main())
    """)
    root = Path(__file__).parents[3]
    environment = {**os.environ, "REDIS_URL": redis_server.url}
    dying = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=root, env=environment)
    assert await dying.wait() == -signal.SIGKILL
    assert redis_server.cli("GET", "user:1:profile") == "old"
    assert await pending(runtime) == [("1", "profile")]
    # The next worker that starts.
    assert await runtime.outbox_relay.deliver_pending(older_than=0) == 1
    with use_caller(Caller("1")):
        assert await get_user_profile_async() == "new"
    assert await pending(runtime) == []


async def test_what_redis_rejects_of_others_blocks_nothing(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = await get_redis_cache()
    await until(lambda: cache.connected and not cache.invalidations.undelivered)

    async def refused() -> None:
        """It stays pending."""

    monkeypatch.setattr(cache.invalidations, "redeliver", refused)
    enqueue(cache, PendingInvalidations(("app:1",), (PendingPattern("app:*", None),)))
    with use_caller(Caller("1")):
        await save_user_profile_async("Name: Ada")
    await runtime.outbox_relay.close()
    assert await pending(runtime) == []
    await runtime.store.save_profile("2", "written past the cache")
    enqueue(cache, PendingInvalidations(("user:2:settings",)))
    assert await runtime.outbox_relay.deliver_pending(older_than=0) == 0
    assert await pending(runtime) == [("2", "profile")]


async def test_a_private_cache_is_invalidated_for_writes_of_others(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("companion.caching.outbox_relay.POLL_INTERVAL", 0.05)
    runtime.outbox_relay.use_private_cache()
    with use_caller(Caller("1")):
        await save_user_profile_async("old")
        assert await get_user_profile_async() == "old"
        await runtime.store.save_profile("1", "new")
        for one in await runtime.store.pending_changes():  # as the writer's relay does for other caches
            await runtime.store.acknowledge([one])
        runtime.outbox_relay.start()

        async def is_new() -> bool:
            return await get_user_profile_async() == "new"

        await until(is_new)


async def test_a_private_cache_is_invalidated_for_all_that_it_missed(
    runtime: Runtime, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("companion.caching.recent_changes.MAX_ROWS", 10)
    runtime.outbox_relay.use_private_cache()
    for number in range(20):
        await runtime.store.save_profile(str(number), "new")
        redis_server.cli("SET", f"user:{number}:profile", "old")
    await runtime.outbox_relay.recent.poll()
    await until(lambda: redis_server.cli("KEYS", "user:*:profile") == [])
    redis_server.cli("SET", "user:1:profile", "kept")
    await runtime.outbox_relay.recent.poll()
    await until(lambda: redis_server.cli("KEYS", "user:*:profile") == [])  # it was not among the newest
    redis_server.cli("SET", "user:1:profile", "kept")
    await runtime.outbox_relay.recent.poll()
    assert redis_server.cli("GET", "user:1:profile") == "kept"  # invalidated already


async def test_a_cache_that_was_not_used_for_days_loses_the_speech_of_an_erased_person(
    runtime: Runtime, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Speech lives for seven days, other values for one."""
    cache = await get_redis_cache()
    await cache.set(keys.speech("1", "x"), b"Welcome back, Ada.", ttl=keys.SPEECH_TTL)
    await runtime.store.save_profile("1", "Name: Ada")
    number = await runtime.store.erase_user("1", "request")  # by a worker with another Redis, which has acknowledged it
    await runtime.store.acknowledge_erasure(PendingErasure("1", number))
    with closing(sqlite3.connect(tmp_path / "store" / "companion.db")) as db, db:
        db.execute("UPDATE erasures SET at = at - 3 * 86400000000")
    runtime.outbox_relay.use_private_cache()
    await runtime.outbox_relay.recent.poll()
    await until(lambda: redis_server.cli("KEYS", "user:*:speech:*") == [])


async def test_a_clock_that_is_set_back_hides_nothing_from_a_private_cache(
    runtime: Runtime, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.outbox_relay.use_private_cache()
    await runtime.outbox_relay.recent.poll()
    await runtime.store.save_profile("1", "new")
    redis_server.cli("SET", "user:1:profile", "old")
    monkeypatch.setattr("time.time", lambda: datetime.now().timestamp() - 3600)
    await runtime.outbox_relay.recent.poll()
    assert redis_server.cli("EXISTS", "user:1:profile") == 0


async def test_a_clock_that_was_set_back_hides_no_pending_row(
    runtime: Runtime, redis_server: RedisServer, tmp_path: Path
) -> None:
    await runtime.store.save_profile("1", "written past the cache")
    redis_server.cli("SET", "user:1:profile", "old")
    with closing(sqlite3.connect(tmp_path / "store" / "companion.db")) as db, db:
        db.execute("UPDATE outbox SET written_at = written_at + 3600000000")
    assert await runtime.outbox_relay.deliver_pending() == 1
    assert redis_server.cli("EXISTS", "user:1:profile") == 0
    assert await pending(runtime) == []


async def test_every_pending_row_is_delivered(runtime: Runtime) -> None:
    for number in range(250):
        await runtime.store.save_profile(f"user-{number}", "written past the cache")
    assert await runtime.outbox_relay.deliver_pending(older_than=0) == 250
    assert await pending(runtime) == []


async def test_with_a_private_cache_rows_stay_pending_for_the_others(runtime: Runtime) -> None:
    runtime.outbox_relay.use_private_cache()
    with use_caller(Caller("1")):
        assert await get_user_profile_async() == ""
        await save_user_profile_async("Name: Ada")
        assert await get_user_profile_async() == "Name: Ada"  # its own cache has been invalidated
    assert await runtime.outbox_relay.deliver_pending(older_than=0) == 0
    await runtime.outbox_relay.close()
    assert await pending(runtime) == [("1", "profile")]


@pytest.mark.parametrize(
    ("project", "private"), [({}, False), ({"SUPABASE_URL": "http://127.0.0.1:1", "SUPABASE_SECRET_KEY": "k"}, True)]
)
async def test_a_private_redis_before_a_hosted_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: dict[str, str], private: bool
) -> None:
    for name, value in project.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("companion.runtime.local_cache.redis_answers", no_redis)
    runtime = set_runtime(Runtime())
    await runtime.open_local_cache()
    assert runtime.outbox_relay.identity.private is private
    await close_runtime()


async def no_redis() -> bool:
    return False


async def test_it_starts_by_itself(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver = runtime.outbox_relay.deliver_pending
    monkeypatch.setattr(runtime.outbox_relay, "deliver_pending", lambda: deliver(older_than=0))
    await runtime.store.save_profile("1", "written past the cache")
    assert await pending(runtime) == [("1", "profile")]
    runtime.outbox_relay.start()

    async def acknowledged() -> bool:
        return await pending(runtime) == []

    await until(acknowledged)


async def test_cancellation_after_the_commit_leaves_nothing_stale(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed, go_on = asyncio.Event(), asyncio.Event()
    save = runtime.store.save_profile

    async def slowly(*args: Any, **kwargs: Any) -> None:
        await save(*args, **kwargs)
        committed.set()
        await go_on.wait()

    with use_caller(Caller("1")):
        await save_user_profile_async("old")
        assert await get_user_profile_async() == "old"
        monkeypatch.setattr(runtime.store, "save_profile", slowly)
        saving = asyncio.create_task(save_user_profile_async("new"))
        await committed.wait()
        saving.cancel()  # as an interrupted turn does
        await asyncio.wait({saving})
        go_on.set()
        await runtime.outbox_relay.close()
        assert await get_user_profile_async() == "new"
    assert await pending(runtime) == []


async def test_a_slow_outbox_does_not_hold_an_invalidation(
    runtime: Runtime, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(runtime.store, "pending_changes_of", hang)
    redis_server.cli("SET", "user:1:profile", "old")
    with use_caller(Caller("1")):
        async with asyncio.timeout(2):
            assert await save_user_profile_async("new") is True
        assert redis_server.cli("EXISTS", "user:1:profile") == 0
    assert await pending(runtime) == [("1", "profile")]  # delivered but not acknowledged: it will be delivered again


async def test_with_the_cache_off_rows_stay_pending(runtime: Runtime) -> None:
    (await get_redis_cache()).disable()
    with use_caller(Caller("1")):
        assert await save_user_profile_async("Name: Ada") is True
    await runtime.outbox_relay.close()
    assert await pending(runtime) == [("1", "profile")]


async def test_an_unreadable_outbox_stops_no_invalidation(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise StoreError("pending_changes_of", "timeout")

    monkeypatch.setattr(runtime.store, "pending_changes_of", fail)
    with use_caller(Caller("1")):
        assert await save_user_profile_async("Name: Ada") is True
        assert await get_user_profile_async() == "Name: Ada"
