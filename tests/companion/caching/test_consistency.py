"""A value that the cache serves and the store no longer holds is found, logged, and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from cache import get_redis_cache, keys
from companion import (
    Caller,
    get_intelligent_first_message_instructions,
    get_user_profile_async,
    save_user_profile_async,
    use_caller,
)
from companion.caching.consistency import ConsistencyWatch
from companion.caching.search_keys import search_key
from companion.memory.context import (
    add_memory_async,
    get_conversation_summary_async,
    get_user_state_async,
    save_user_state_async,
    search_memories_async,
)
from companion.runtime import Runtime
from companion.store import DataKind, Memory, Store, StoreError, Summary, Turn
from tests.companion.scripted import ScriptedLLM
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WRITES: dict[DataKind, Callable[[Store], Awaitable[None]]] = {
    "profile": lambda store: store.save_profile("ada", "what is true"),
    "turn": lambda store: store.add_turn("ada", Turn("user", "what is true", NOON, "c")),
    "memory": lambda store: store.add_memory("ada", Memory("what is true", NOON)),
    "summary": lambda store: store.save_summary("ada", Summary("c", "what is true", NOON)),
    "state": lambda store: store.save_state("ada", {"stage": "what is true"}),
}
OLD: dict[DataKind, tuple[keys.Key, Any]] = {
    "profile": (keys.profile("ada"), "what Ada said"),
    "turn": (keys.greeting_instructions("ada"), {"opening": "first_meeting", "last_seen": ""}),
    "memory": (search_key("ada", ""), ["what Ada said"]),
    "summary": (keys.summary("ada"), "what Ada said"),
    "state": (keys.state("ada"), {"stage": "what Ada said"}),
}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.caching.consistency.FIRST_CHECK", 0.02)
    monkeypatch.setattr("companion.caching.consistency.SECOND_CHECK", 0.02)


@pytest.fixture
def watch(runtime: Runtime) -> ConsistencyWatch:
    return ConsistencyWatch(lambda: runtime.store, 1.0)


async def looked(watch: ConsistencyWatch) -> int:
    """The number of stale reads after the check has run."""
    await until(lambda: not len(watch))
    return int((await (await get_redis_cache()).get_stats())["stale_reads"])


def test_everything_that_can_be_written_is_watched() -> None:
    assert set(WRITES) == set(OLD) == set(get_args(DataKind))


@pytest.mark.parametrize("what", OLD)
async def test_a_stale_value_is_counted_logged_and_removed(
    runtime: Runtime,
    watch: ConsistencyWatch,
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    what: DataKind,
) -> None:
    key, old = OLD[what]
    cache = await get_redis_cache()
    await WRITES[what](runtime.store)
    await cache.set(key, old, ttl=60)
    watch.schedule("ada", what)
    assert await looked(watch) == 1
    assert f"[REDIS] Warning: stale value under {key}, 0." in caplog.text
    assert "said" not in caplog.text
    assert "true" not in caplog.text
    assert redis_server.cli("EXISTS", key) == 0
    await cache.close()
    assert redis_server.cli("HGET", keys.system_stats(), "stale_reads") == "1"  # counted in Redis too


async def test_a_right_value_is_not_reported(
    runtime: Runtime, watch: ConsistencyWatch, model: ScriptedLLM, caplog: pytest.LogCaptureFixture
) -> None:
    """Every kind of cached data, read after it was written."""
    model.says = '{"follow_up": false, "confidence": 0.9, "topic": ""}'
    for what, write in WRITES.items():
        with use_caller(Caller("ada")):
            await get_user_profile_async()
            await get_intelligent_first_message_instructions("ada", "")
            await search_memories_async("")
            await get_conversation_summary_async()
            await get_user_state_async()
        for key, _ in OLD.values():
            assert await (await get_redis_cache()).exists(key) == 1
        for each in WRITES:
            watch.schedule("ada", each)
        assert await looked(watch) == 0
        await write(runtime.store)
        await runtime.outbox_relay.invalidate_written("ada", what)
    assert "stale" not in caplog.text


async def test_what_is_being_changed_is_not_stale(
    runtime: Runtime, watch: ConsistencyWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("companion.caching.consistency.SECOND_CHECK", 0.2)
    cache = await get_redis_cache()
    await cache.set(keys.profile("ada"), "old", ttl=60)
    await runtime.store.save_profile("ada", "new")
    seen, get = asyncio.Event(), runtime.store.get_profile

    async def get_profile(user_id: str) -> str | None:
        seen.set()
        return await get(user_id)

    monkeypatch.setattr(runtime.store, "get_profile", get_profile)
    watch.schedule("ada", "profile")
    await seen.wait()
    await cache.delete(keys.profile("ada"))  # a delayed invalidation
    assert await looked(watch) == 0


async def test_a_store_that_cannot_say_proves_nothing(
    runtime: Runtime, watch: ConsistencyWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: str) -> None:
        raise StoreError("get_profile", "timeout")

    await (await get_redis_cache()).set(keys.profile("ada"), "old", ttl=60)
    monkeypatch.setattr(runtime.store, "get_profile", fail)
    watch.schedule("ada", "profile")
    assert await looked(watch) == 0


async def test_only_a_share_is_watched_and_never_too_many(runtime: Runtime) -> None:
    none, some, all_of_them = (ConsistencyWatch(lambda: runtime.store, share) for share in (0.0, 0.1, 1.0))
    for _ in range(400):
        for watch in (none, some, all_of_them):
            watch.schedule("ada", "profile")
    assert len(none) == 0
    assert 10 < len(some) < 100
    assert len(all_of_them) == 100
    await asyncio.gather(some.close(), all_of_them.close())


async def test_writes_are_watched_wherever_they_come_from(
    runtime: Runtime, watch: ConsistencyWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a defect had disabled invalidation."""

    async def no_invalidation(*_: object) -> None:
        """Invalidate nothing."""

    monkeypatch.setattr("companion.caching.outbox_relay.invalidate", no_invalidation)
    monkeypatch.setattr(runtime.outbox_relay, "watch", watch)
    with use_caller(Caller("ada")):
        await get_user_profile_async()
        await get_user_state_async()
        await search_memories_async("")
        await save_user_profile_async("Name: Ada")
        await save_user_state_async({"stage": "familiar"})
        await add_memory_async(Memory("my sister visits", NOON))
        assert await looked(watch) == 3
        assert await get_user_profile_async() == "Name: Ada"
