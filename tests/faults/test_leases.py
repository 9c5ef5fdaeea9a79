"""The right to fill a key is given back, whatever becomes of whoever had it: nobody waits for a load that is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cache import RedisCache, keys
from cache.loading.policy import EntryOptions
from tests.cache.clock import timed
from tests.faults.background import BackgroundProxy
from tests.real.redis_server import RedisServer
from tests.wait import initialised, until

pytestmark = pytest.mark.faults
KEY = keys.profile("1")
LEASE = keys.lease(KEY)


async def new() -> str:
    return "new"


async def never() -> str:
    await asyncio.Event().wait()
    return ""


@pytest.mark.parametrize("turns", range(10))
async def test_wherever_a_load_is_cancelled(
    own_redis: RedisServer, make_cache: Callable[..., RedisCache], turns: int
) -> None:
    with BackgroundProxy(own_redis.port, delay_to_client=0.002) as proxy:
        cache = make_cache(f"redis://127.0.0.1:{proxy.port}/0", connect_wait=5.0)
        await cache.initialize()
        for step in range(4):  # before, while and after the right is asked for
            key = keys.profile(f"{turns}-{step}")
            asking = asyncio.create_task(cache.get_or_load(key, never, ttl=60))
            await asyncio.sleep(step * 0.002)
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait({asking})
            answer, took = await timed(cache.get_or_load(key, new, ttl=60))
            assert answer == "new"
            assert took < 0.2  # and not the three seconds after which a killed leader is replaced


async def test_closing_in_the_middle_of_a_load(hurt: RedisCache, own_redis: RedisServer) -> None:
    loading = [asyncio.create_task(hurt.get_or_load(keys.profile(str(n)), never, ttl=60)) for n in range(5)]
    await until(lambda: own_redis.cli("EXISTS", *(keys.lease(keys.profile(str(n))) for n in range(5))) == 5)
    await hurt.close()
    assert own_redis.cli("KEYS", "lease:*") == []
    await asyncio.gather(*loading, return_exceptions=True)


@pytest.mark.parametrize("command", [("SET", LEASE, "somebody"), ("RPUSH", LEASE, "not", "a", "string")])
async def test_one_that_never_ends_is_taken_over(
    hurt: RedisCache, own_redis: RedisServer, command: tuple[str, ...]
) -> None:
    own_redis.cli(*command)
    answer, took = await timed(hurt.get_or_load(KEY, new, ttl=60))
    assert (answer, own_redis.cli("GET", KEY), own_redis.cli("EXISTS", LEASE)) == ("new", "new", 0)
    assert took < 0.2


async def test_one_that_is_granted_to_somebody_who_has_stopped_waiting(
    hurt: RedisCache, own_redis: RedisServer
) -> None:
    await hurt.get_or_load(keys.profile("warm"), new, ttl=60)
    own_redis.pause()
    earlier = asyncio.create_task(hurt.get("k"))
    await asyncio.sleep(0.03)
    # Redis will grant the right when it wakes up. Nobody can take it back by then, because the silence that the
    # earlier call met has been noticed.
    await hurt._filler.fill(KEY, new, EntryOptions(60), asyncio.get_running_loop().time())
    await earlier
    own_redis.resume()
    await until(lambda: hurt.connected, 3)
    answer, took = await timed(hurt.get_or_load(KEY, new, ttl=60))
    assert answer == "new"
    assert took < 0.5


async def test_a_cached_none_costs_nobody_a_round_trip(hurt: RedisCache, own_redis: RedisServer) -> None:
    async def nothing() -> None:
        return None

    assert await hurt.get_or_load(KEY, nothing, ttl=60) is None  # and is not kept, since nobody said for how long
    await until(lambda: own_redis.cli("EXISTS", LEASE) == 0)
    assert await hurt.get_or_load(KEY, new, ttl=60) == "new"


async def test_a_fill_that_fails_gives_the_right_back(
    own_redis: RedisServer, make_cache: Callable[..., RedisCache]
) -> None:
    with BackgroundProxy(own_redis.port) as proxy:
        cache = make_cache(f"redis://127.0.0.1:{proxy.port}/0", connect_wait=5.0)
        await initialised(cache)

        async def load_while_the_network_goes() -> str:
            await proxy.do(lambda it: it.stall())
            return "new"

        loading = asyncio.create_task(cache.get_or_load(KEY, load_while_the_network_goes, ttl=60))
        await until(lambda: not cache.connected)
        await proxy.do(lambda it: (it.reset_all(), it.heal())[1])
        assert await loading == "new"
        await until(lambda: cache.connected)
        await until(lambda: own_redis.cli("EXISTS", LEASE) == 0, 1.0)  # and not the three seconds
