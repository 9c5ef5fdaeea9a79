"""Calls that take several steps have one deadline, and as few steps as can be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from cache import RedisCache, keys
from tests.cache.clock import timed
from tests.faults.background import BackgroundProxy
from tests.real.redis_server import RedisServer
from tests.wait import initialised, until

pytestmark = [pytest.mark.faults, pytest.mark.serial]
DEADLINE, SLACK = 0.05, 0.02
KEY = keys.memory("1", "a")  # of a kind that has an index besides


async def load() -> str:
    return "loaded"


@pytest.fixture
async def far(own_redis: RedisServer, make_cache: Callable[..., RedisCache]) -> AsyncIterator[RedisCache]:
    """A cache to which every reply takes 20 ms: within the deadline, but three of them are not."""
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
    "get_or_load, owed": lambda c: c.get_or_load(keys.profile("owed"), load, ttl=60),
    "get, undecodable": lambda c: c.get("undecodable"),
    "get_many, undecodable": lambda c: c.get_many([f"undecodable{n}" for n in range(20)]),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("forgotten", [False, True], ids=["scripts known", "scripts forgotten"])
async def test_one_deadline_for_all_steps(far: RedisCache, own_redis: RedisServer, name: str, forgotten: bool) -> None:
    for number in range(20):
        own_redis.cli("MSET", f"undecodable{number}", b"\xff", "undecodable", b"\xff")
    far._engine.pending.add(keys.profile("owed"))
    if forgotten:
        own_redis.cli("SCRIPT", "FLUSH")
    _, took = await timed(CALLS[name](far))
    assert took < DEADLINE + SLACK


async def test_what_a_call_gave_up_waiting_for_is_made_up_for(far: RedisCache, own_redis: RedisServer) -> None:
    assert await far.get_or_load(KEY, load, ttl=60) == "loaded"
    await until(lambda: own_redis.cli("EXISTS", keys.lease(KEY)) == 0, 2)


async def test_the_scripts_are_there_before_anybody_needs_them(hurt: RedisCache, own_redis: RedisServer) -> None:
    own_redis.cli("CONFIG", "RESETSTAT")
    await hurt.set("k", "v")
    await hurt.get_or_load("l", load, ttl=60)
    assert "errorstat_NOSCRIPT" not in own_redis.cli("INFO", "errorstats")
