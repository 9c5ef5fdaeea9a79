"""Calls of several steps have one deadline, and no unnecessary steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from cache import RedisCache, keys
from tests.cache.loading.clock import timed
from tests.faults.harness.background_proxy import BackgroundProxy
from tests.inside import engine_of
from tests.real.redis.redis_server import RedisServer
from tests.wait import initialised, until

pytestmark = [pytest.mark.faults, pytest.mark.timed]
DEADLINE, SLACK = 0.05, 0.02
KEY = keys.memory("1", "a")  # an indexed kind


async def load() -> str:
    return "loaded"


@pytest.fixture
async def slow_cache(own_redis: RedisServer, make_cache: Callable[..., RedisCache]) -> AsyncIterator[RedisCache]:
    """A cache with a reply latency of 20 ms: one is within the deadline, three are not."""
    with BackgroundProxy(own_redis.port, delay_to_client=0.02) as proxy:
        cache = make_cache(f"redis://127.0.0.1:{proxy.port}/0", deadline=DEADLINE, connect_wait=5.0)
        await initialised(cache)
        yield cache
        await cache.close()


CALLS = {
    "set": lambda c: c.set(KEY, "v", ttl=60),
    "set_many": lambda c: c.set_many({KEY: "v", keys.profile("1"): "w"}, ttl=60),
    "delete": lambda c: c.delete(KEY, keys.profile("1")),
    "get_or_load": lambda c: c.get_or_load(KEY, load, ttl=60),
    "get_or_load, pending": lambda c: c.get_or_load(keys.profile("pending"), load, ttl=60),
    "warm": lambda c: c.warm(KEY, load, ttl=60),
    "get, undecodable": lambda c: c.get("undecodable"),
    "get_many, undecodable": lambda c: c.get_many([f"undecodable{n}" for n in range(20)]),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("scripts_flushed", [False, True], ids=["scripts known", "scripts flushed"])
async def test_one_deadline_for_all_steps(
    slow_cache: RedisCache, own_redis: RedisServer, name: str, scripts_flushed: bool
) -> None:
    for number in range(20):
        own_redis.cli("MSET", f"undecodable{number}", b"\xff", "undecodable", b"\xff")
    engine_of(slow_cache).pending.add(keys.profile("pending"))
    if scripts_flushed:
        own_redis.cli("SCRIPT", "FLUSH")
    _, took = await timed(CALLS[name](slow_cache))
    assert took < DEADLINE + SLACK


async def test_a_call_that_times_out_is_completed(slow_cache: RedisCache, own_redis: RedisServer) -> None:
    assert await slow_cache.get_or_load(KEY, load, ttl=60) == "loaded"
    await until(lambda: own_redis.cli("EXISTS", keys.lease(KEY)) == 0, 2)


async def test_scripts_are_loaded_at_connection(own_cache: RedisCache, own_redis: RedisServer) -> None:
    own_redis.cli("CONFIG", "RESETSTAT")
    await own_cache.set("k", "v")
    await own_cache.get_or_load("l", load, ttl=60)
    assert "errorstat_NOSCRIPT" not in own_redis.cli("INFO", "errorstats")
