"""The near cache against a real server: latency, size limit, and bounded staleness."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from cache import CacheConfigError, CacheSettings, RedisCache, keys
from cache.coherence import near_cache
from cache.coherence.near_cache import MISSING, NearCache
from tests.inside import engine_of
from tests.lag import LoopLag
from tests.real.proxy import Proxy
from tests.real.redis.redis_server import RedisServer
from tests.wait import initialised, until

pytestmark = [pytest.mark.integration, pytest.mark.every_server, pytest.mark.every_deployment]
FAMILIES = frozenset({"profile", "settings"})


@pytest.fixture
async def near(redis_server: RedisServer, make_cache: Any) -> RedisCache:
    return await connected(make_cache, redis_server.url)


async def connected(make_cache: Any, url: str, **settings: Any) -> RedisCache:
    cache: RedisCache = make_cache(url, connect_wait=5.0, near=FAMILIES, **({"deadline": 2.0} | settings))
    await initialised(cache)
    await engine_of(cache).transport.send("EXISTS", "")  # in a cluster, connects to the node of this key
    await until(lambda: engine_of(cache).servers.tracks(""))
    return cache


async def test_a_hit_sends_no_command(near: RedisCache, redis_server: RedisServer) -> None:
    await near.set("user:1:profile", {"name": "Ada"}, ttl=60)
    assert await near.get("user:1:profile") == {"name": "Ada"}
    before = redis_server.calls("get")
    for _ in range(100):
        value = await near.get("user:1:profile")
        assert value == {"name": "Ada"}
        value["name"] = "changed by the caller"  # a caller may change its copy
    assert redis_server.calls("get") == before
    assert await near.get("user:1:profile", fresh=True) == {"name": "Ada"}
    assert redis_server.calls("get") == before + 1
    assert (await near.get_stats())["cache_hits"] == 102


async def test_only_families_that_were_chosen(near: RedisCache, redis_server: RedisServer) -> None:
    for key in ("user:1:state", "user:1:other", "system:profile", "profile"):
        await near.set(key, "v", ttl=60)
        await near.get(key)
        before = redis_server.calls("get")
        await near.get(key)
        assert redis_server.calls("get") == before + 1


CHANGES = {
    "SET": lambda server: server.cli("SET", "user:1:profile", "new"),
    "DEL": lambda server: server.cli("DEL", "user:1:profile"),
    "RENAME": lambda server: server.cli("RENAME", "user:1:profile", "{user:1:profile}:elsewhere"),
    "expiry": lambda server: server.cli("PEXPIRE", "user:1:profile", "1"),
    "FLUSHALL": lambda server: server.cli("FLUSHALL"),
    "Lua": lambda server: server.cli("EVAL", "return redis.call('DEL', KEYS[1])", 1, "user:1:profile"),
}


@pytest.mark.parametrize("how", CHANGES)
async def test_a_change_elsewhere_is_seen(near: RedisCache, redis_server: RedisServer, how: str) -> None:
    await near.set("user:1:profile", "old", ttl=60)
    assert await near.get("user:1:profile") == "old"
    assert await near.get("user:1:profile") == "old"
    CHANGES[how](redis_server)
    await until(lambda: near_value(near), timeout=2)


async def near_value(cache: RedisCache) -> bool:
    return await cache.get("user:1:profile") != "old"


async def test_an_eviction_is_seen(own_redis: RedisServer, make_cache: Any) -> None:
    own_redis.cli("CONFIG", "SET", "maxmemory", "3mb")
    own_redis.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    cache = await connected(make_cache, own_redis.url)
    await cache.set("user:1:profile", "old", ttl=600)
    await cache.get("user:1:profile")
    for n in range(20_000):  # the server samples which key to evict
        own_redis.cli("SET", f"filler:{n}", "x" * 10_000)
        if not own_redis.cli("EXISTS", "user:1:profile"):
            break
    assert own_redis.cli("EXISTS", "user:1:profile") == 0
    await until(lambda: near_value(cache), timeout=2)


async def test_evictions_by_our_own_writes_are_pushed_too(own_redis: RedisServer, make_cache: Any) -> None:
    """With NOLOOP it would not be on every server, and later writes of the key would not be pushed either."""
    cache = await connected(make_cache, own_redis.url)
    names = [keys.profile(str(n)) for n in range(50)]
    await cache.set_many(dict.fromkeys(names, "old"), ttl=600)
    await asyncio.gather(*(cache.get(name) for name in names))
    assert len(engine_of(cache).near.entries) == 50
    own_redis.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    used = int(own_redis.cli("INFO", "memory").split("used_memory:")[1].split()[0])
    own_redis.cli("CONFIG", "SET", "maxmemory", used + 100_000)
    for n in range(100):
        await cache.set(f"filler:{n}", "x" * 5_000)
    evicted = [name for name in names if not own_redis.cli("EXISTS", name)]
    assert evicted
    own_redis.cli("CONFIG", "SET", "maxmemory", 0)
    for name in evicted:
        own_redis.cli("SET", name, "new")
    await until(lambda: all_say(cache, evicted, "new"), timeout=2)


async def all_say(cache: RedisCache, names: list[str], value: str) -> bool:
    return {await cache.get(name) for name in names} == {value}


async def test_our_own_expire_counts(near: RedisCache, redis_server: RedisServer) -> None:
    await near.set("user:1:profile", "old", ttl=3600)
    assert await near.get("user:1:profile") == "old"
    assert await near.expire("user:1:profile", 100)
    assert await near.get("user:1:profile") == "old"
    left = engine_of(near).near.entries["user:1:profile"][1] - asyncio.get_running_loop().time()
    assert left <= 100
    redis_server.cli("SET", "user:1:profile", "new")
    await until(lambda: near_value(near), timeout=2)


@pytest.mark.one_server
async def test_a_pending_invalidation_is_obeyed_here_too(own_redis: RedisServer, make_cache: Any) -> None:
    cache = await connected(make_cache, own_redis.url)
    await cache.set("user:1:profile", "old", ttl=600)
    assert await cache.get("user:1:profile") == "old"
    own_redis.cli("ACL", "SETUSER", "default", "-unlink")
    assert await cache.delete("user:1:profile") == 0
    for _ in range(3):  # Redis still holds it, and a read does not cache it again
        assert await cache.get("user:1:profile") is None
    own_redis.cli("ACL", "SETUSER", "default", "+unlink")
    await until(lambda: own_redis.cli("EXISTS", "user:1:profile") == 0)


async def test_a_load_fills_without_leaving_the_old_value_near(near: RedisCache, redis_server: RedisServer) -> None:
    """The fill is our own write, and may have to load its script first: a read in between caches the old value."""
    await near.set("user:1:profile", "old", ttl=60)
    redis_server.cli("PEXPIRE", "user:1:profile", "20000")
    go = asyncio.Event()

    async def load() -> str:
        await go.wait()
        redis_server.cli("SCRIPT", "FLUSH")
        return "new"

    assert await near.get_or_load("user:1:profile", load, ttl=60, refresh_after=30) == "old"
    go.set()

    async def filled() -> bool:
        await near.get("user:1:profile")
        return redis_server.cli("GET", "user:1:profile") == "new"

    await until(filled)
    await until(lambda: near_value(near), timeout=1)


async def test_a_process_reads_its_own_writes(near: RedisCache) -> None:
    draw = random.Random(1)
    wrong = 0

    async def live(user: int) -> None:
        nonlocal wrong
        key = keys.profile(str(user))
        for n in range(60):
            await near.set(key, n, ttl=60)
            if draw.random() < 0.5:
                await asyncio.sleep(0)
            wrong += await near.get(key) != n
            if draw.random() < 0.2:
                await near.delete(key)
                wrong += await near.get(key) is not None

    async def read(user: int) -> None:
        for _ in range(200):
            await near.get(keys.profile(str(user)))

    await asyncio.gather(*(live(user) for user in range(10)), *(read(user) for user in range(10)))
    assert wrong == 0


async def test_an_entry_never_outlives_its_key(near: RedisCache, redis_server: RedisServer) -> None:
    await near.set("user:1:profile", "old", ttl=1)
    assert await near.get("user:1:profile") == "old"
    expires_at = engine_of(near).near.entries["user:1:profile"][1]
    left = redis_server.cli("PTTL", "user:1:profile") / 1000
    assert expires_at <= asyncio.get_running_loop().time() + left + 0.01


@pytest.mark.one_server
async def test_a_dead_link_serves_nothing_after_a_second(redis_server: RedisServer, make_cache: Any) -> None:
    async with Proxy(redis_server.port) as proxy:
        cache = await connected(make_cache, f"redis://127.0.0.1:{proxy.port}/0", deadline=0.5)
        await cache.set("user:1:profile", "old", ttl=60)
        assert await cache.get("user:1:profile") == "old"
        proxy.blackhole()
        redis_server.cli("SET", "user:1:profile", "new")
        start = asyncio.get_running_loop().time()
        async with LoopLag() as lag:
            await until(lambda: near_value(cache), timeout=20)
        # A second after the last answered ping.
        assert asyncio.get_running_loop().time() - start < 1.6 + lag.seconds
        await proxy.heal()
        await until(lambda: engine_of(cache).servers.tracks(""))
        assert await cache.get("user:1:profile") == "new"


async def test_without_proof_of_life_nothing_is_served(near: RedisCache, redis_server: RedisServer) -> None:
    """Regardless of the state of the connection."""
    await near.set("user:1:profile", "v", ttl=60)
    await near.get("user:1:profile")
    client = engine_of(near).transport.client
    assert client is not None
    node: Any = client.node_of("user:1:profile")
    before = redis_server.calls("get")
    node.proven_at = asyncio.get_running_loop().time() - 0.99
    assert await near.get("user:1:profile") == "v"
    assert redis_server.calls("get") == before
    node.proven_at = asyncio.get_running_loop().time() - 1.01
    assert await near.get("user:1:profile") == "v"
    assert redis_server.calls("get") == before + 1


async def test_a_killed_connection_drops_everything(near: RedisCache, redis_server: RedisServer) -> None:
    await near.set("user:1:profile", "old", ttl=60)
    await near.get("user:1:profile")
    assert len(engine_of(near).near.entries) == 1
    redis_server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    redis_server.cli("SET", "user:1:profile", "new")
    await until(lambda: near_value(near), timeout=3)
    await until(lambda: engine_of(near).servers.tracks(""))


@pytest.mark.one_server
async def test_replies_that_are_late_leave_nothing_old(redis_server: RedisServer, make_cache: Any) -> None:
    async with Proxy(redis_server.port, seed=3, delay_to_client=(0.0, 0.004)) as proxy:
        cache = await connected(make_cache, f"redis://127.0.0.1:{proxy.port}/0")
        names = [keys.profile(str(n)) for n in range(300)]
        draw = random.Random(3)

        async def write() -> None:
            for n in range(1500):
                redis_server.cli("SET", draw.choice(names), str(n))
                if n % 5 == 0:
                    await asyncio.sleep(0)

        async def read() -> None:
            for _ in range(200):
                await cache.get(draw.choice(names))

        await asyncio.gather(write(), *(read() for _ in range(10)))
        # All earlier replies and pushes have arrived once a later command is answered.
        for _ in range(3):
            await cache.health_check()
        kept = dict(engine_of(cache).near.entries)
        truth = dict(zip(names, redis_server.cli("MGET", *names), strict=True))
        assert kept
        assert {key: raw.decode() for key, (raw, _) in kept.items()} == {key: truth[key] for key in kept}


def filled(cache: NearCache, key: str, raw: bytes) -> None:
    cache.end(key, cache.begin(key), raw, 1e9)


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_cache, "MAX_ENTRIES", 3)
    monkeypatch.setattr(near_cache, "MAX_BYTES", 10_000)
    cache = NearCache(FAMILIES)
    for n in range(5):
        filled(cache, f"user:{n}:profile", b"v")
        cache.get("user:2:profile", 0)
    assert [n for n in range(5) if cache.get(f"user:{n}:profile", 0) is not MISSING] == [2, 3, 4]
    filled(cache, "user:9:profile", b"x" * 9_500)
    assert len(cache.entries) == 1
    filled(cache, "user:9:profile", b"x" * 20_000)
    assert len(cache.entries) == 0


def test_what_spoils_a_read() -> None:
    cache = NearCache(FAMILIES)
    drop_where = lambda: cache.drop_where(lambda key: key == "user:1:profile")  # noqa: E731 - three of one kind
    for spoil in (lambda: cache.drop("user:1:profile"), cache.drop_all, drop_where):
        token = cache.begin("user:1:profile")
        spoil()
        cache.end("user:1:profile", token, b"old", 1e9)
        assert len(cache.entries) == 0


def test_families_are_named() -> None:
    assert CacheSettings.from_env(environ={"CACHE_NEAR": "profile, greeting"}).near == {
        "profile",
        "greeting_instructions",
    }
    with pytest.raises(CacheConfigError, match="CACHE_NEAR"):
        CacheSettings.from_env(environ={"CACHE_NEAR": "profiles"})


def test_reads_that_overlap_share_a_token() -> None:
    cache, key = NearCache(FAMILIES), "user:1:profile"
    first, second = cache.begin(key), cache.begin(key)
    cache.end(key, first, b"new", 1e9)
    cache.drop(key)
    cache.end(key, second, b"old", 1e9)
    assert len(cache.entries) == 0
