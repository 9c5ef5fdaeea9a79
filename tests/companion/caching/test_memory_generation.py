"""Memory searches hang on a generation per user: one key is deleted, no keyspace is scanned."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from cache import RedisCache, get_redis_cache, keys
from companion import Caller, use_caller
from companion.caching.invalidation import invalidate
from companion.caching.read_through import read_memory_count, read_memory_search
from companion.caching.search_keys import count_key, generation_key, search_key
from companion.memory.context import add_memory_async, search_memories_async
from companion.runtime import Runtime
from companion.store import Memory
from tests.real.redis.redis_server import RedisServer
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
QUERY = "When does my sister visit?"
PREVIOUS = keys.memory("ada", f"search-{hashlib.sha256(b'sister visit').hexdigest()[:32]}")
"""The key of this search in the version before."""


def memory(text: str) -> Memory:
    return Memory(text, datetime.now(UTC))


@pytest.fixture
async def other(redis_server: RedisServer, make_cache: Callable[..., RedisCache]) -> RedisCache:
    """The cache of another process."""
    cache = make_cache(redis_server.url, deadline=2.0, connect_wait=5.0)
    await initialised(cache)
    return cache


async def search(runtime: Runtime, query: str = QUERY) -> list[str]:
    return await read_memory_search(lambda: runtime.store, "ada", query)


@pytest.mark.parametrize("query", [QUERY, ""])
async def test_a_fact_of_another_process_is_found(runtime: Runtime, other: RedisCache, query: str) -> None:
    assert await search(runtime, query) == []
    assert await read_memory_count(lambda: runtime.store, "ada", query) == 0
    await runtime.store.add_memory("ada", memory("My sister visits on Friday"))
    assert await search(runtime, query) == []
    await invalidate(other, "ada", "memory")
    assert await search(runtime, query) == ["My sister visits on Friday"]
    assert await read_memory_count(lambda: runtime.store, "ada", query) == 1


@pytest.mark.parametrize("query", [QUERY, ""])
async def test_a_search_that_began_before_a_fact_is_not_found_after_it(
    runtime: Runtime, other: RedisCache, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    find, asked, go_on = runtime.store.search_memories, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any) -> Any:
        found = await find(*args)
        asked.set()
        await go_on.wait()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(runtime.store, "search_memories", slow)
        searching = asyncio.create_task(search(runtime, query))
        await asked.wait()
        await runtime.store.add_memory("ada", memory("My sister visits on Friday"))
        await invalidate(other, "ada", "memory")
        go_on.set()
        assert await searching == []
    assert await search(runtime, query) == ["My sister visits on Friday"]


async def test_an_evicted_generation_is_a_new_one(runtime: Runtime, redis_server: RedisServer) -> None:
    await search(runtime)
    await runtime.store.add_memory("ada", memory("My sister visits on Friday"))
    redis_server.cli("DEL", generation_key("ada"))
    assert await search(runtime) == ["My sister visits on Friday"]


@pytest.mark.parametrize("index", ["there", "evicted"])
async def test_what_the_version_before_invalidates_is_invalidated(
    runtime: Runtime, other: RedisCache, redis_server: RedisServer, index: str
) -> None:
    """It deletes every key of the pattern."""
    await search(runtime)
    await runtime.store.add_memory("ada", memory("My sister visits on Friday"))
    if index == "evicted":
        redis_server.cli("DEL", keys.index("ada"))
    await other.invalidate("user:ada:memory:*", user_id="ada")
    assert await search(runtime) == ["My sister visits on Friday"]


async def test_what_the_version_before_has_cached_is_invalidated(
    runtime: Runtime, other: RedisCache, redis_server: RedisServer
) -> None:
    names = [PREVIOUS, search_key("ada", ""), count_key("ada", "")]
    for name in names:
        await other.set(name, ["old"], ttl=300)
    redis_server.cli("SET", "user:ada:memory:photo", "another application's")
    await invalidate(await get_redis_cache(), "ada", "memory")
    assert redis_server.cli("KEYS", "user:ada:*") == ["user:ada:memory:photo"]


async def test_the_index_does_not_grow_with_the_searches(runtime: Runtime, redis_server: RedisServer) -> None:
    for number in range(20):
        await search(runtime, f"sister {number}")
    await invalidate(await get_redis_cache(), "ada", "memory")
    assert redis_server.cli("EXISTS", keys.index("ada")) == 0


async def test_remembering_and_searching_scan_nothing(runtime: Runtime, redis_server: RedisServer) -> None:
    redis_server.cli("EVAL", "for n = 1, 3000 do redis.call('SET', 'user:' .. n .. ':profile', 'x') end", 0)
    with use_caller(Caller("ada")):
        await search_memories_async(QUERY)
        redis_server.cli("CONFIG", "RESETSTAT")
        await add_memory_async(memory("My sister visits on Friday"))
        assert await search_memories_async(QUERY) == ["My sister visits on Friday"]
    assert redis_server.calls("scan") <= 1  # of the handshake


async def test_facts_that_were_pending_are_redelivered_without_a_scan(
    own_redis: RedisServer, make_cache: Callable[..., RedisCache]
) -> None:
    own_redis.cli("EVAL", "for n = 1, 3000 do redis.call('SET', 'user:' .. n .. ':profile', 'x') end", 0)
    cache = make_cache(own_redis.url, connect_wait=5.0)
    await initialised(cache)
    own_redis.cli("CONFIG", "RESETSTAT")
    own_redis.pause()
    await cache.get("any")  # notices the silence
    await until(lambda: not cache.connected)
    for number in range(1, 31):
        await invalidate(cache, str(number), "memory")
    own_redis.resume()
    await until(lambda: cache.connected and not cache.invalidations.undelivered)
    assert own_redis.calls("scan") <= 1  # of another handshake
