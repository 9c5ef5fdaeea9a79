"""The documented operations against a real server: arguments, defaults, return values."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache import RedisCache, keys
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = [pytest.mark.integration, pytest.mark.every_server, pytest.mark.every_deployment]


async def test_set_get_delete(cache: RedisCache, redis_server: RedisServer) -> None:
    assert await cache.get("user:123:profile") is None
    assert await cache.get("user:123:profile", default="none yet") == "none yet"
    assert await cache.set("user:123:profile", {"name": "Ada"}, ttl=3600) is True
    assert await cache.get("user:123:profile") == {"name": "Ada"}
    assert 3598 <= redis_server.cli("TTL", "user:123:profile") <= 3600
    await cache.set("key1", 1)
    await cache.set("key2", 2)
    assert await cache.delete("key1", "key2", "key3") == 2
    assert await cache.delete() == 0


async def test_nx_and_xx(cache: RedisCache) -> None:
    assert await cache.set("lock:user:123", "locked", ttl=10, nx=True) is True
    assert await cache.set("lock:user:123", "again", ttl=10, nx=True) is False
    assert await cache.get("lock:user:123") == "locked"
    assert await cache.set("absent", "x", xx=True) is False
    assert await cache.exists("absent") == 0
    assert await cache.set("lock:user:123", "other", xx=True) is True


async def test_exists_expire_ttl(cache: RedisCache) -> None:
    await cache.set("a", 1)
    await cache.set("b", 1)
    assert await cache.exists("a", "b", "c") == 2
    assert await cache.exists() == 0
    assert await cache.ttl("a") == -1
    assert await cache.ttl("c") == -2
    assert await cache.expire("a", 300) is True
    assert 298 <= await cache.ttl("a") <= 300
    assert await cache.expire("c", 300) is False


async def test_many(cache: RedisCache) -> None:
    assert await cache.set_many({"a": 1, "b": None, "c": "x"}, ttl=60) == 3
    assert await cache.get_many(["a", "b", "missing", "c"]) == {"a": 1, "b": None, "c": "x"}
    assert await cache.get_many([]) == {}
    assert 58 <= await cache.ttl("b") <= 60
    stats = await cache.get_stats()
    assert (stats["cache_hits"], stats["cache_misses"]) == (3, 1)


@pytest.mark.one_server  # the arguments are checked before any server is asked
@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda c: c.set("k", object()), TypeError),
        (lambda c: c.set("k", float("nan")), ValueError),
        (lambda c: c.set("k", 1, ttl=-1), ValueError),
        (lambda c: c.set("k", 1, ttl=10**17), ValueError),
        (lambda c: c.set("k", 1, ttl=0), ValueError),
        (lambda c: c.set("k", 1, ttl=1.5), TypeError),
        (lambda c: c.set("k", 1, nx=True, xx=True), ValueError),
        (lambda c: c.set("", 1), ValueError),
        (lambda c: c.set(b"k", 1), TypeError),
        (lambda c: c.get("\ud800"), ValueError),
        (lambda c: c.expire("k", -5), ValueError),
        (lambda c: c.invalidate_pattern(""), ValueError),
        (lambda c: c.invalidate_pattern("x" * 2000), ValueError),
        (lambda c: c.clear_user_cache("*"), ValueError),
    ],
)
async def test_a_programming_error_raises_with_and_without_redis(
    cache: RedisCache, make_cache: Any, connected: bool, call: Any, error: type[Exception]
) -> None:
    used = cache if connected else make_cache("redis://127.0.0.1:1/0")
    with pytest.raises(error):
        await call(used)


async def test_invalidate_pattern(cache: RedisCache, redis_server: RedisServer) -> None:
    redis_server.many([("SET", f"user:{n}:profile", "p") for n in range(1200)])
    await cache.set("user:7:settings", 1)
    await cache.set(keys.system_config(), 1)
    await cache.set("lock:user:1", "token")
    assert await cache.invalidate_pattern("user:*:profile") == 1200
    assert await cache.exists("user:7:settings") == 1
    assert await cache.invalidate_pattern("user:*:profile") == 0
    # Reserved keys are matched only by a pattern with their prefix.
    await until(lambda: redis_server.cli("EXISTS", "system:stats") == 0 or True)
    assert await cache.invalidate_pattern("*") == 1
    assert redis_server.cli("EXISTS", "system:config", "lock:user:1") == 2
    assert await cache.invalidate_pattern("[ls]*") == 0
    assert await cache.invalidate_pattern("lock:*") == 1
    assert await cache.invalidate_pattern("system:config") == 1


async def test_a_sweep_uses_scan_and_unlink_in_batches(cache: RedisCache, redis_server: RedisServer) -> None:
    redis_server.many([("SET", f"user:{n}:profile", "p") for n in range(1500)])
    await cache.get_stats()  # connects to every node of a cluster: the handshake tries DEL
    redis_server.cli("CONFIG", "RESETSTAT")
    await cache.invalidate_pattern("user:*")
    used = {
        line.split(":")[0].removeprefix("cmdstat_")
        for line in redis_server.cli("INFO", "commandstats").splitlines()
        if line.startswith("cmdstat_")
    }
    assert {"scan", "unlink"} <= used
    assert not used & {"keys", "del", "flushdb"}
    assert redis_server.calls("unlink") >= 3


async def test_confined_to_one_user(cache: RedisCache, redis_server: RedisServer) -> None:
    for user in ("1", "12"):
        await cache.set(keys.profile(user), "p")
        await cache.set(keys.settings(user), "s")
    outcome = await cache.invalidate("user:*:profile", user_id="1")
    assert (outcome.deleted, outcome.complete) == (1, True)
    assert (await cache.invalidate("*", user_id="1")).deleted == 1
    assert redis_server.cli("EXISTS", keys.profile("12"), keys.settings("12")) == 2


async def test_stats_have_the_documented_keys_and_three_more(cache: RedisCache) -> None:
    for _ in range(3):
        await cache.set("k", 1)
        await cache.get("k")
    await cache.get("missing")
    stats = await cache.get_stats()
    memory = stats.pop("redis_memory")
    assert stats.pop("redis_keys") >= 1
    assert memory[-1] in "BKMG"
    assert stats == {
        "enabled": True,
        "connected": True,
        "total_requests": 4,
        "cache_hits": 3,
        "cache_misses": 1,
        "hit_rate": "75.0%",
        "connection_errors": 0,
        "stale_reads": 0,
        "undecodable": 0,
        "warmed": 0,
    }


async def test_a_programs_own_bookkeeping_is_not_counted(cache: RedisCache) -> None:
    await cache.set("k", 1)
    assert await cache.get("k", counted=False) == 1
    assert await cache.get("k", counted=False, timeout=1.0) == 1
    assert await cache.get("missing", "none", counted=False) == "none"
    assert (await cache.get_stats())["total_requests"] == 0


@pytest.mark.one_server
async def test_totals_are_the_fleets(redis_server: RedisServer, make_cache: Any) -> None:
    first, second = (make_cache(redis_server.url, deadline=2.0, connect_wait=5.0) for _ in range(2))
    await first.initialize()
    await first.set("k", 1)
    await first.get("k")
    await first.get("missing")
    await first.close()  # a conversation ends
    await second.initialize()  # the next one begins, in a process of its own
    await second.get("k")
    stats = await second.get_stats()
    assert (stats["total_requests"], stats["cache_hits"], stats["cache_misses"]) == (3, 2, 1)
    # Counters are flushed without a call of get_stats.
    await until(lambda: redis_server.cli("HGET", "system:stats", "total_requests") == "3")


async def test_a_foreign_type_is_a_miss_and_an_error(cache: RedisCache, redis_server: RedisServer) -> None:
    redis_server.cli("RPUSH", "list", "a")
    assert await cache.get("list", "default") == "default"
    assert (await cache.get_stats())["connection_errors"] == 1
    assert cache.connected


async def test_a_foreign_type_among_many_is_a_miss_of_its_own(cache: RedisCache, redis_server: RedisServer) -> None:
    await cache.set_many({"a": 1, "b": 2}, ttl=60)
    redis_server.cli("RPUSH", "list", "theirs")
    assert await cache.get_many(["list", "a", "missing", "b", "list"]) == {"a": 1, "b": 2}
    stats = await cache.get_stats()
    assert (stats["cache_hits"], stats["cache_misses"], stats["connection_errors"]) == (2, 3, 1)
    assert redis_server.cli("LLEN", "list") == 1
    assert not cache.invalidations.undelivered


async def test_a_key_that_may_not_be_read_is_a_miss_of_its_own(own_redis: RedisServer, connect: Any) -> None:
    own_redis.cli("ACL", "SETUSER", "ann", "on", ">pw", "+@all", "~user:*", "~system:*")
    cache = await connect(f"redis://ann:pw@127.0.0.1:{own_redis.port}/0")
    own_redis.cli("MSET", "others:1", "theirs", "user:1:profile", "Ada")
    assert await cache.get_many(["others:1", "user:1:profile"]) == {"user:1:profile": "Ada"}


async def test_health_check(cache: RedisCache, make_cache: Any) -> None:
    assert await cache.health_check() is True
    assert await make_cache("redis://127.0.0.1:1/0").health_check() is False


async def test_more_callers_than_connections_are_no_misses(redis_server: RedisServer, make_cache: Any) -> None:
    cache = make_cache(redis_server.url, deadline=5.0, connect_wait=5.0)
    await cache.initialize()
    await cache.set("k", "v")
    assert await asyncio.gather(*(cache.get("k") for _ in range(500))) == ["v"] * 500
    stats = await cache.get_stats()
    assert (stats["cache_misses"], stats["connection_errors"]) == (0, 0)
    assert len(redis_server.cli("CLIENT", "LIST").splitlines()) <= 52
