"""Warming: a load ahead of the lookups, under their lease and their fence, and counted apart from them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cache import LoadCycle, RedisCache, UnserialisableValue, keys
from tests.cache.loading.loader import Loader
from tests.inside import filler_of
from tests.real.redis.redis_server import NOWHERE, RedisServer
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
KEY = keys.profile("123")


async def counted(cache: RedisCache) -> tuple[int, int, int, int]:
    """Lookups, hits, misses, and values warmed."""
    stats = await cache.get_stats()
    return stats["total_requests"], stats["cache_hits"], stats["cache_misses"], stats["warmed"]


async def test_a_missing_value_is_loaded_and_the_next_lookup_hits(cache: RedisCache, redis_server: RedisServer) -> None:
    loader = Loader({"name": "Ada"})
    assert await cache.warm(KEY, loader, 60) == {"name": "Ada"}
    assert await counted(cache) == (0, 0, 0, 1)
    assert redis_server.cli("GET", KEY) == '{"name":"Ada"}'
    assert 57 <= redis_server.cli("TTL", KEY) <= 60
    assert redis_server.cli("EXISTS", keys.lease(KEY)) == 0
    assert await cache.get_or_load(KEY, loader, 60) == {"name": "Ada"}
    assert loader.calls == 1
    assert await counted(cache) == (1, 1, 0, 1)


async def test_a_value_that_is_there_stays(cache: RedisCache, redis_server: RedisServer) -> None:
    await cache.set(KEY, "there", ttl=30)
    loader = Loader()
    assert await cache.warm(KEY, loader, 3600) == "there"
    assert (loader.calls, redis_server.cli("TTL", KEY) <= 30) == (0, True)
    assert await counted(cache) == (0, 0, 0, 0)


@pytest.mark.parametrize("first", ["warm", "get_or_load"])
async def test_it_shares_its_load_with_lookups_of_every_process(
    cache: RedisCache, redis_server: RedisServer, make_cache: Callable[..., RedisCache], first: str
) -> None:
    other = make_cache(redis_server.url, deadline=2.0, connect_wait=5.0)
    await initialised(other)
    loader = Loader(held=True)
    begun = asyncio.create_task(getattr(cache, first)(KEY, loader, 60))
    await loader.started.wait()
    calls = [cache.warm(KEY, loader, 60), cache.get_or_load(KEY, loader, 60)]
    calls += [other.warm(KEY, loader, 60), other.get_or_load(KEY, loader, 60)]
    tasks = [asyncio.create_task(call) for call in calls]
    await until(lambda: KEY.encode() in filler_of(other).waiters.events)
    loader.gate.set()
    assert await asyncio.gather(begun, *tasks) == ["loaded"] * 5
    assert loader.calls == 1
    lookups, hits, misses, _ = await counted(cache)
    others_lookups, _, _, _ = await counted(other)
    asked = 2 if first == "get_or_load" else 1  # and one of the other's
    assert (lookups, hits, misses, others_lookups) == (asked, 0, asked, 1)


async def test_nothing_from_before_an_invalidation_is_stored(cache: RedisCache, redis_server: RedisServer) -> None:
    old = Loader("old", held=True)
    warming = asyncio.create_task(cache.warm(KEY, old, 60))
    await old.started.wait()
    await cache.delete(KEY)
    assert await cache.warm(KEY, Loader("new"), 60) == "new"
    old.gate.set()
    assert await warming == "old"
    assert redis_server.cli("GET", KEY) == "new"


async def test_a_failing_loader_raises_and_counts_nothing(cache: RedisCache, redis_server: RedisServer) -> None:
    with pytest.raises(LookupError):
        await cache.warm(KEY, Loader(LookupError()), 60)
    await until(lambda: redis_server.cli("EXISTS", KEY, keys.lease(KEY)) == 0)
    assert await counted(cache) == (0, 0, 0, 0)


async def test_options_are_those_of_a_lookup(cache: RedisCache, redis_server: RedisServer) -> None:
    assert await cache.warm(KEY, Loader(None), 60, negative_ttl=5) is None
    assert 0 < redis_server.cli("PTTL", KEY) <= 5000
    await cache.delete(KEY)
    assert await cache.warm(KEY, Loader("good"), 60, stale_for=600) == "good"
    redis_server.cli("DEL", KEY)  # as if it had expired
    assert await cache.warm(KEY, Loader(LookupError()), 60, stale_for=600) == "good"


async def test_programming_errors_raise(cache: RedisCache) -> None:
    with pytest.raises(ValueError, match="TTL"):
        await cache.warm(KEY, Loader(), 0)
    with pytest.raises(UnserialisableValue):
        await cache.warm(KEY, Loader(object()), 60)

    async def itself() -> Any:
        return await cache.warm(KEY, itself, 60)

    with pytest.raises(LoadCycle):
        await cache.warm(KEY, itself, 60)


async def test_without_redis_it_loads_and_is_no_lookup(make_cache: Callable[..., RedisCache]) -> None:
    for settings in ({"enabled": False}, {}):
        away = make_cache(f"redis://127.0.0.1:{NOWHERE}/0", connect_wait=0.01, **settings)
        await away.initialize()
        assert await away.warm(KEY, Loader(), 60) == "loaded"
        assert (await away.get_stats())["total_requests"] == 0


async def test_the_fleets_total(
    cache: RedisCache, redis_server: RedisServer, make_cache: Callable[..., RedisCache]
) -> None:
    other = make_cache(redis_server.url, deadline=2.0, connect_wait=5.0)
    await initialised(other)
    await other.warm("a", Loader(), 60)
    await other.close()
    await cache.warm("b", Loader(), 60)
    assert redis_server.cli("HGET", keys.system_stats(), "warmed") == "1"
    assert (await counted(cache))[3] == 2
