"""``incr``: counters, such as those of a rate limit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache import RedisCache, keys
from tests.cache.loading.loader import Loader
from tests.inside import engine_of
from tests.real.redis.redis_server import NOWHERE, RedisServer
from tests.wait import until

pytestmark = [pytest.mark.integration, pytest.mark.every_server]
KEY = keys.temp("s", "requests")


async def test_it_counts_and_keeps_the_ttl_of_its_creation(cache: RedisCache, redis_server: RedisServer) -> None:
    assert await cache.incr(KEY, ttl=60) == 1
    redis_server.cli("PEXPIRE", KEY, 30_000)
    assert await cache.incr(KEY, 5, ttl=60) == 6
    assert redis_server.cli("PTTL", KEY) <= 30_000
    assert await cache.incr(KEY, -7) == -1
    assert await cache.get(KEY) == -1
    assert await cache.get_or_load(KEY, Loader("never asked"), ttl=60) == -1
    assert await cache.incr("for ever") == 1
    assert redis_server.cli("PTTL", "for ever") == -1
    assert await cache.incr("for ever", ttl=60) == 2
    assert redis_server.cli("PTTL", "for ever") == -1
    assert await cache.incr("zero", 0, ttl=60) == 0
    assert 0 < redis_server.cli("PTTL", "zero") <= 60_000
    await cache.set("set before", 41)
    assert await cache.incr("set before") == 42


async def test_it_is_atomic_and_exact(cache: RedisCache, connect: Any, redis_server: RedisServer) -> None:
    other = await connect(redis_server.url)
    counts = await asyncio.gather(*(one.incr(KEY, ttl=60) for one in (cache, other) for _ in range(100)))
    assert sorted(counts) == list(range(1, 201))  # type: ignore[type-var]  # None fails
    assert await cache.incr("large", 2**62) == 2**62
    assert await cache.incr("large", 2**62 - 1) == 2**63 - 1
    assert await cache.get("large") == 2**63 - 1
    assert await cache.incr("large") is None  # it would overflow
    assert await cache.incr("small", -(2**63), ttl=60) == -(2**63)


async def test_a_counter_that_was_deleted_begins_anew_also_without_unlink(
    redis_server: RedisServer, connect: Any
) -> None:
    redis_server.cli("ACL", "SETUSER", "counting", "on", ">pw", "~*", "&*", "+@all", "-unlink")
    cache = await connect(redis_server.url.replace("redis://", "redis://counting:pw@"))
    assert await cache.incr(KEY, 7) == 7
    engine_of(cache).pending.add(KEY)
    assert await cache.incr(KEY) == 1
    assert await cache.get(KEY) == 1


@pytest.mark.parametrize("value", ["a text", 1.5, {"a": 1}, None, True, b"bytes"])
async def test_what_is_no_counter_stays_as_it_is(cache: RedisCache, value: Any) -> None:
    await cache.set(KEY, value, ttl=60)
    assert await cache.incr(KEY, ttl=60) is None
    assert await cache.get(KEY, "absent") == value


async def test_the_near_cache_and_loads_under_way_see_it(redis_server: RedisServer, connect: Any) -> None:
    one, two = [await connect(redis_server.url, near=frozenset({"state"})) for _ in range(2)]
    key = keys.state("1")
    assert await one.incr(key, ttl=60) == 1
    assert [await cache.get(key) for cache in (one, two, one, two)] == [1] * 4
    assert await one.incr(key) == 2
    assert await one.get(key) == 2
    await until(lambda: _is(two, key, 2))
    assert redis_server.cli("EXISTS", keys.lease(key), keys.stale(key)) == 0
    await one.delete(key)
    old = Loader(0, held=True)
    loading = asyncio.create_task(two.get_or_load(key, old, ttl=60))
    await old.started.wait()
    assert await one.incr(key, 3, ttl=60) == 3
    old.gate.set()
    assert await loading == 0
    assert redis_server.cli("GET", key) == "3"


async def _is(cache: RedisCache, key: str, wanted: Any) -> bool:
    return bool(await cache.get(key) == wanted)


@pytest.mark.parametrize("by", [1, 0])
async def test_a_deleted_counter_begins_anew_also_if_the_delete_is_pending(
    own_redis: RedisServer, connect: Any, by: int
) -> None:
    cache = await connect(own_redis.url)
    assert await cache.incr(KEY, 7, ttl=60) == 7
    own_redis.cli("ACL", "SETUSER", "default", "-unlink")
    assert await cache.delete(KEY) == 0
    assert await cache.get(KEY) is None
    assert await cache.incr(KEY, ttl=60) is None  # it cannot be deleted yet
    own_redis.cli("ACL", "SETUSER", "default", "+unlink")
    assert await cache.incr(KEY, by, ttl=60) == by
    await until(lambda: not cache.invalidations.undelivered)
    assert await cache.get(KEY) == by


async def test_without_redis_the_answer_is_none_and_nothing_is_pending(make_cache: Any) -> None:
    away = make_cache(f"redis://127.0.0.1:{NOWHERE}/0", connect_wait=0.1)
    off = make_cache("redis://127.0.0.1:1/0", enabled=False)
    for cache in (away, off):
        assert await cache.incr(KEY, ttl=60) is None
        assert not cache.invalidations.undelivered
    assert engine_of(away).counters.connection_errors >= 1
    assert engine_of(off).counters.connection_errors == 0


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"by": 1.0}, TypeError),
        ({"by": True}, TypeError),
        ({"by": "1"}, TypeError),
        ({"by": 2**63}, ValueError),
        ({"ttl": 0}, ValueError),
        ({"ttl": 1.5}, TypeError),
        ({"key": ""}, ValueError),
        ({"key": b"k"}, TypeError),
    ],
)
async def test_arguments_are_checked_with_and_without_redis(
    cache: RedisCache, make_cache: Any, connected: bool, arguments: Any, error: type[Exception]
) -> None:
    used = cache if connected else make_cache("redis://127.0.0.1:1/0", enabled=False)
    with pytest.raises(error):
        await used.incr(**({"key": KEY} | arguments))


async def test_with_encryption_a_counter_is_a_plain_number(
    redis_server: RedisServer, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    cache = await connect(redis_server.url, encryption_keys=(b"n" * 32,))
    assert [await cache.incr(KEY, 41, ttl=60), await cache.incr(KEY, ttl=60)] == [41, 42]
    assert (redis_server.cli("GET", KEY), await cache.get(KEY)) == ("42", 42)
    assert await cache.get_or_load(KEY, Loader("never asked"), ttl=60) == 42
    assert await cache.incr(keys.state("123"), ttl=60) is None  # nothing of a user is stored in the clear
    assert redis_server.cli("EXISTS", keys.state("123")) == 0
    assert "a user's counter" in caplog.text
    assert "123" not in caplog.text
    for planted in ("+1", "1.5", "7" * 20):
        redis_server.cli("SET", KEY, planted)
        assert await cache.get(KEY, "a miss") == "a miss"
        await until(lambda: not redis_server.cli("EXISTS", KEY))
