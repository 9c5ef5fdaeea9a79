"""A lease is released however its holder ends, so that no caller waits for a load that does not run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cache import RedisCache, keys
from cache.loading.policy import EntryOptions
from tests.cache.loading.clock import timed
from tests.faults.harness.background_proxy import BackgroundProxy
from tests.inside import filler_of
from tests.real.redis.redis_server import RedisServer
from tests.wait import initialised, until

pytestmark = pytest.mark.faults
KEY = keys.profile("1")
LEASE = keys.lease(KEY)


async def new() -> str:
    return "new"


async def never() -> str:
    await asyncio.Event().wait()
    return ""


@pytest.mark.timed
@pytest.mark.parametrize("turns", range(10))
async def test_wherever_a_load_is_cancelled(
    own_redis: RedisServer, make_cache: Callable[..., RedisCache], turns: int
) -> None:
    with BackgroundProxy(own_redis.port, delay_to_client=0.002) as proxy:
        cache = make_cache(f"redis://127.0.0.1:{proxy.port}/0", connect_wait=5.0)
        await cache.initialize()
        for step in range(4):  # before, during and after the lease request
            key = keys.profile(f"{turns}-{step}")
            asking = asyncio.create_task(cache.get_or_load(key, never, ttl=60))
            await asyncio.sleep(step * 0.002)
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait({asking})
            answer, took = await timed(cache.get_or_load(key, new, ttl=60))
            assert answer == "new"
            assert took < 0.2  # far less than the lease's three seconds


async def test_closing_in_the_middle_of_a_load(own_cache: RedisCache, own_redis: RedisServer) -> None:
    loading = [asyncio.create_task(own_cache.get_or_load(keys.profile(str(n)), never, ttl=60)) for n in range(5)]
    await until(lambda: own_redis.cli("EXISTS", *(keys.lease(keys.profile(str(n))) for n in range(5))) == 5)
    await own_cache.close()
    assert own_redis.cli("KEYS", "lease:*") == []
    await asyncio.gather(*loading, return_exceptions=True)


@pytest.mark.timed
@pytest.mark.parametrize("command", [("SET", LEASE, "somebody"), ("RPUSH", LEASE, "not", "a", "string")])
async def test_a_lease_without_ttl_is_taken_over(
    own_cache: RedisCache, own_redis: RedisServer, command: tuple[str, ...]
) -> None:
    own_redis.cli(*command)
    answer, took = await timed(own_cache.get_or_load(KEY, new, ttl=60))
    assert (answer, own_redis.cli("GET", KEY), own_redis.cli("EXISTS", LEASE)) == ("new", "new", 0)
    assert took < 0.2


@pytest.mark.timed
async def test_a_lease_granted_after_its_caller_gave_up(own_cache: RedisCache, own_redis: RedisServer) -> None:
    await own_cache.get_or_load(keys.profile("warm"), new, ttl=60)
    own_redis.pause()
    earlier = asyncio.create_task(own_cache.get("k"))
    await asyncio.sleep(0.03)
    # Redis will grant the lease when it resumes. By then the connection counts as silent because of the earlier
    # call, so that the release cannot be sent over it.
    await filler_of(own_cache).fill(KEY, new, EntryOptions(60), asyncio.get_running_loop().time())
    await earlier
    own_redis.resume()
    await until(lambda: own_cache.connected, 3)
    answer, took = await timed(own_cache.get_or_load(KEY, new, ttl=60))
    assert answer == "new"
    assert took < 0.5


async def test_an_uncached_none_releases_its_lease(own_cache: RedisCache, own_redis: RedisServer) -> None:
    async def load_none() -> None:
        return None

    assert await own_cache.get_or_load(KEY, load_none, ttl=60) is None  # not cached: no negative TTL is set
    await until(lambda: own_redis.cli("EXISTS", LEASE) == 0)
    assert await own_cache.get_or_load(KEY, new, ttl=60) == "new"


async def test_a_failed_fill_releases_its_lease(own_redis: RedisServer, make_cache: Callable[..., RedisCache]) -> None:
    with BackgroundProxy(own_redis.port) as proxy:
        cache = make_cache(f"redis://127.0.0.1:{proxy.port}/0", connect_wait=5.0)
        await initialised(cache)

        async def load_while_the_network_fails() -> str:
            await proxy.apply(lambda inner: inner.stall())
            return "new"

        loading = asyncio.create_task(cache.get_or_load(KEY, load_while_the_network_fails, ttl=60))
        await until(lambda: not cache.connected)
        await proxy.apply(lambda inner: (inner.reset_all(), inner.heal())[1])
        assert await loading == "new"
        await until(lambda: cache.connected)
        await until(lambda: own_redis.cli("EXISTS", LEASE) == 0, 1.0)  # less than the lease's three seconds
