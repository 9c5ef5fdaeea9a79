"""Invalid values in Redis are not served, are removed, and do not stall a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cache import RedisCache, keys
from cache.transport.multiplexer import LARGEST_REPLY_BYTES
from tests.cache.loading.clock import timed
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.faults
KEY = keys.profile("1")


async def right() -> str:
    return "right"


@pytest.mark.parametrize("corrupt", [KEY, keys.stale(KEY)])
async def test_another_type_is_replaced(own_cache: RedisCache, own_redis: RedisServer, corrupt: str) -> None:
    own_redis.cli("RPUSH", corrupt, "not", "a", "string")
    assert await own_cache.get_or_load(KEY, right, ttl=60, stale_for=60) == "right"
    assert own_redis.cli("GET", KEY) == "right"


async def test_reading_alone_removes_nothing_of_another_type(own_cache: RedisCache, own_redis: RedisServer) -> None:
    own_redis.cli("RPUSH", "another application's list", 1)
    assert await own_cache.get("another application's list", "nothing") == "nothing"
    assert own_redis.cli("LLEN", "another application's list") == 1


async def test_an_undecodable_value_that_cannot_be_removed(own_cache: RedisCache, own_redis: RedisServer) -> None:
    own_redis.cli("SET", KEY, b"\xff")
    own_redis.cli("ACL", "SETUSER", "default", "-unlink")
    async with asyncio.timeout(1):
        assert await own_cache.get_or_load(KEY, right, ttl=60) == "right"
        assert await own_cache.get(KEY) is None


@pytest.mark.parametrize("stored", [b"\xff", b"x" * 1001])
async def test_a_value_that_cannot_be_removed_counts_once(
    own_redis: RedisServer, make_cache: Callable[..., RedisCache], stored: bytes
) -> None:
    cache = make_cache(own_redis.url, connect_wait=5.0, max_value_bytes=1000)
    await cache.initialize()
    own_redis.cli("SET", KEY, stored)
    own_redis.cli("ACL", "SETUSER", "default", "-unlink")
    assert [await cache.get(KEY) for _ in range(3)] == [None] * 3
    assert await cache.get_many([KEY]) == {}
    assert (await cache.get_stats())["undecodable"] == 1


@pytest.mark.parametrize(
    "ask", [lambda c: c.get(KEY), lambda c: c.get_many([KEY]), lambda c: c.get_or_load(KEY, right)]
)
async def test_larger_than_anything_we_store(
    own_redis: RedisServer, make_cache: Callable[..., RedisCache], ask: Callable[[RedisCache], object]
) -> None:
    cache = make_cache(own_redis.url, connect_wait=5.0, max_value_bytes=1000)
    await cache.initialize()
    own_redis.cli("SET", KEY, "x" * 1001)
    assert await ask(cache) in (None, {}, "right")  # type: ignore[misc] # a coroutine
    await until(lambda: own_redis.cli("GET", KEY) in (None, "right"))


@pytest.mark.serial
async def test_a_reply_of_a_hundred_megabytes_costs_one_connection(
    own_cache: RedisCache, own_redis: RedisServer
) -> None:
    own_redis.cli("SETRANGE", KEY, 100 << 20, "x")
    others = [asyncio.create_task(timed(own_cache.get(f"k{n}"))) for n in range(20)]
    answer, took = await timed(own_cache.get(KEY))
    assert answer is None
    assert took < 0.07
    assert max([(await other)[1] for other in others]) < 0.07

    async def removed() -> bool:  # on a busy machine the server may be silent too long before so much is read
        return await own_cache.get(KEY) is None and own_cache.connected and own_redis.cli("EXISTS", KEY) == 0

    await until(removed)
    assert await own_cache.get_or_load(KEY, right, ttl=60) == "right"
    assert await own_cache.get(KEY) == "right"
    assert LARGEST_REPLY_BYTES < 100 << 20


async def test_a_last_good_value_too_large_to_be_read_is_removed(own_cache: RedisCache, own_redis: RedisServer) -> None:
    """The script that grants a lease reads it."""
    own_redis.cli("SETRANGE", keys.stale(KEY), LARGEST_REPLY_BYTES + (4 << 20), "x")

    async def removed() -> bool:  # more than one call: a server that is slow with it may be silent for too long
        assert await own_cache.get_or_load(KEY, right, ttl=60, stale_for=60) == "right"
        return bool(own_redis.cli("STRLEN", keys.stale(KEY)) < 100)

    await until(removed)
