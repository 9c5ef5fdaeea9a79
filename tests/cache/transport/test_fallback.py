"""Without a multiplexer the pool carries all commands: servers without RESP3, clusters of one and two nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from cache import LockUnavailable, RedisCache, keys
from cache.coherence.pending import PendingInvalidations
from cache.core.engine import Engine
from cache.transport.cluster.cluster import ClusterClient
from cache.transport.fallback.pool import PooledClient
from tests.cache.loading.clock import timed
from tests.cache.loading.loader import Loader
from tests.inside import engine_of, enqueue
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.resp import RedisReplyError
from tests.real.redis.resp2_server import refusing, without_resp3
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
KEY = keys.profile("123")


class Place:
    """A URL, and its servers."""

    def __init__(self, url: str, servers: list[RedisServer]) -> None:
        self.url, self.servers = url, servers

    def keys(self, pattern: str) -> set[str]:
        return {key for server in self.servers for key in server.cli("KEYS", pattern)}

    def each(self, *command: str | int) -> None:
        for server in self.servers:
            server.cli(*command)


@pytest.fixture(params=["no RESP3", "cluster of one", "cluster of two"])
async def place(request: pytest.FixtureRequest, redis_server: RedisServer) -> AsyncIterator[Place]:
    if request.param == "no RESP3":
        async with without_resp3(redis_server.port) as port:
            yield Place(f"redis://127.0.0.1:{port}/0", [redis_server])
    else:
        nodes = request.getfixturevalue("clusters")[request.param]
        for server in nodes:
            server.cli("FLUSHALL")
        yield Place(nodes[0].url, nodes)


@pytest.fixture
async def fallen(place: Place, connect: Any) -> RedisCache:
    cache: RedisCache = await connect(place.url, tracked=False, ttl_spread=0)
    kind = ClusterClient if place.url == place.servers[0].url else PooledClient
    assert isinstance(engine_of(cache).transport.client, kind)
    return cache


async def test_every_documented_method(fallen: RedisCache, place: Place) -> None:
    cache = fallen
    assert await cache.health_check()
    assert await cache.set(KEY, {"name": "Ada"}, ttl=3600)
    assert await cache.get(KEY) == {"name": "Ada"}
    assert 3598 <= await cache.ttl(KEY) <= 3600
    assert await cache.set(KEY, "again", nx=True) is False
    assert await cache.set(KEY, "other", xx=True) is True
    assert await cache.set("absent", 1, xx=True) is False
    names = [f"k{n}" for n in range(20)]  # on every node
    assert await cache.set_many({name: n for n, name in enumerate(names)}, ttl=60) == 20
    assert await cache.get_many([*names, "missing"]) == {name: n for n, name in enumerate(names)}
    assert await cache.exists(*names, "missing") == 20
    assert await cache.expire("k1", 300)
    assert await cache.expire("missing", 300) is False
    assert await cache.delete(*names[:10], "missing") == 10
    stats = await cache.get_stats()
    assert (stats["connected"], stats["connection_errors"]) == (True, 0)
    assert (stats["cache_hits"], stats["cache_misses"], stats["redis_keys"]) == (21, 1, len(place.keys("*")))
    assert stats["redis_memory"][-1] in "KM"
    assert len(place.servers) == 1 or all(server.cli("DBSIZE") for server in place.servers)


@pytest.mark.parametrize("key", ["orders:{7}", "{7}:cart", "user:1:a{b}c"])
async def test_a_key_with_a_hash_tag(fallen: RedisCache, place: Place, key: str) -> None:
    assert await fallen.set(key, 1, ttl=60)
    assert await fallen.incr(key) == 2
    assert await fallen.delete(key) == 1
    loader = Loader("old", held=True)
    load = asyncio.create_task(fallen.get_or_load(key, loader, ttl=60, stale_for=60))
    await loader.started.wait()
    await fallen.invalidate_pattern(key.replace("{", "[{]"))
    loader.gate.set()
    assert await load == "old"
    assert place.keys("[^s]*{*") <= {"index:{1}"}, "neither a fill after the invalidation nor a lease"
    assert await fallen.get_or_load(key, Loader("new"), ttl=60, stale_for=60) == "new"
    assert await fallen.get(key) == "new"
    assert place.keys("stale:*") == {keys.stale(key)}
    await fallen.invalidate_pattern(key[:3] + "*")
    assert place.keys("[^s]*{*") | place.keys("stale:*") <= {"index:{1}"}


async def test_a_foreign_type_among_many_is_a_miss_of_its_own(fallen: RedisCache, place: Place) -> None:
    names = [f"k{n}" for n in range(20)]  # on every node
    await fallen.set_many({name: name for name in names}, ttl=60)
    await fallen.delete("k7")
    assert await engine_of(fallen).transport.send("RPUSH", "k7", "theirs") == 1
    assert await fallen.get_many(names) == {name: name for name in names if name != "k7"}
    assert await engine_of(fallen).transport.send("LLEN", "k7") == 1
    assert (await fallen.get_stats())["connection_errors"] == 1


@pytest.mark.timed
async def test_one_load_and_no_fill_after_an_invalidation(fallen: RedisCache, place: Place, connect: Any) -> None:
    other = await connect(place.url, tracked=False, ttl_spread=0)
    for cache in (fallen, other):  # which asks a node without a mark once whether it was restored
        assert await cache.exists(KEY) == 0
    await until(lambda: not fallen.invalidations.undelivered and not other.invalidations.undelivered)
    place.each("SCRIPT", "FLUSH")
    loader = Loader("old", held=True)
    callers = [asyncio.create_task(cache.get_or_load(KEY, loader, ttl=60)) for cache in (fallen, other) * 10]
    await loader.started.wait()
    await asyncio.sleep(0.1)
    loader.gate.set()
    values, took = await timed(asyncio.gather(*callers))
    assert values == ["old"] * 20
    assert took < 0.5
    assert loader.calls == 1
    for invalidate in (
        lambda: other.delete(KEY),
        lambda: other.set(KEY, "new", ttl=60),
        lambda: other.invalidate_pattern("user:*:profile"),
        lambda: other.clear_user_cache("123"),
    ):
        await other.delete(KEY)
        held = Loader("old", held=True)
        load = asyncio.create_task(fallen.get_or_load(KEY, held, ttl=60, stale_for=60))
        await held.started.wait()
        place.each("SCRIPT", "FLUSH")
        await invalidate()
        held.gate.set()
        assert await load == "old"
        assert await fallen.get(KEY) in (None, "new")
        assert place.keys("stale:*") == set()


async def test_refresh_and_the_last_good_value(fallen: RedisCache, place: Place) -> None:
    assert await fallen.get_or_load(KEY, Loader("first"), ttl=60, stale_for=60) == "first"
    await fallen.expire(KEY, 20)
    second = Loader("second")
    assert await fallen.get_or_load(KEY, second, ttl=60, refresh_after=30) == "first"

    async def refreshed() -> bool:
        return await fallen.get(KEY) == "second"

    await until(refreshed)
    assert second.calls == 1
    assert await fallen.get_or_load("user:1:custom", Loader("good"), ttl=60, stale_for=60) == "good"
    for server in place.servers:
        if "user:1:custom" in server.cli("KEYS", "user:*"):
            server.cli("DEL", "user:1:custom")
    assert await fallen.get_or_load("user:1:custom", Loader(OSError("down")), ttl=60, stale_for=60) == "good"


async def test_invalidation_reaches_every_node_and_no_other_user(fallen: RedisCache, place: Place) -> None:
    for user in range(30):
        assert await fallen.set_many({keys.profile(str(user)): 1, f"user:{user}:notes:1": 2}, ttl=60) == 2
    assert await fallen.clear_user_cache("7") == 2
    assert place.keys("user:7:*") == set()
    assert len(place.keys("user:*")) == 58
    assert await fallen.invalidate_pattern("user:*:profile") == 29
    assert await fallen.invalidate_pattern("user:*") == 29
    assert place.keys("user:*") == set()


async def test_only_own_keys_are_deleted_on_every_node(fallen: RedisCache, place: Place) -> None:
    for user in range(30):
        assert await fallen.set_many({keys.profile(str(user)): 1, f"user:{user}:notes": 2}, ttl=60) == 2
        with suppress(RedisReplyError):  # each key belongs to one of the nodes
            place.each("SET", f"user:{user}:orders", "bread")
    others = place.keys("user:*:orders")
    for server in place.servers:
        with suppress(RedisReplyError):
            server.cli("HSET", "user:x:profile", "name", "Ada")
    assert others
    assert (await fallen.invalidate("user:7:*", user_id="7", own=True)).deleted == 2
    await fallen.invalidate("user:*", own=True)
    await until(lambda: not fallen.invalidations.undelivered)
    assert place.keys("user:*") == others | {"user:x:profile"}
    assert place.keys("index:*") <= {f"index:{{{user}}}" for user in range(30) if user != 7}


@pytest.mark.parametrize("small", [0, 2000])
async def test_a_user_is_cleared_by_name_and_the_rest_in_the_background(
    fallen: RedisCache, place: Place, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr("cache.invalidation.invalidator.SMALL", small)
    assert await fallen.set_many({keys.profile("7"): 1, "user:7:notes": 2, "user:8:notes": 3}, ttl=60) == 3
    for server in place.servers:
        for number in range(20):
            with suppress(RedisReplyError):
                server.cli("SET", f"user:7:by hand:{number}", "x")
    assert await fallen.invalidate_pattern("user:7:*") >= 2
    assert await fallen.get("user:7:by hand:1") is None
    await until(lambda: place.keys("user:7:*") == set())
    assert place.keys("user:*") == {"user:8:notes"}


async def test_locks(fallen: RedisCache, place: Place) -> None:
    async with fallen.lock("user", "1"):
        assert place.keys("lock:*") == {"lock:user:1"}
        with pytest.raises(LockUnavailable):
            async with fallen.lock("user", "1"):
                pass
    assert place.keys("lock:*") == set()


async def test_more_callers_than_connections_are_no_misses(place: Place, connect: Any) -> None:
    cache = await connect(place.url, tracked=False, deadline=20.0)
    await cache.set("k", "v")
    assert await asyncio.gather(*(cache.get("k") for _ in range(500))) == ["v"] * 500
    assert (await cache.get_stats())["connection_errors"] == 0
    for server in place.servers:
        assert server.cli("CLIENT", "LIST").count("name=companion-cache") <= 50


async def test_connections_that_are_not_used_are_closed(own_redis: RedisServer, connect: Any) -> None:
    async with without_resp3(own_redis.port) as port:
        cache: RedisCache = await connect(f"redis://127.0.0.1:{port}/0", tracked=False, health_check_interval=0.5)
        before = connections(own_redis)
        assert await asyncio.gather(*(cache.set(f"k{n}", n) for n in range(20))) == [True] * 20
        assert connections(own_redis) > before + 5
        await until(lambda: connections(own_redis) <= before)
        assert await cache.get("k7") == 7
        assert cache.connected
        await cache.close()


def connections(server: RedisServer) -> int:
    return server.cli("CLIENT", "LIST").count("name=companion-cache")


async def test_no_reply_reaches_another_caller(fallen: RedisCache) -> None:
    await fallen.set_many({f"k{n}": n for n in range(50)}, ttl=60)
    wrong = cancelled = 0

    async def caller(number: int) -> None:
        nonlocal wrong, cancelled
        for turn in range(30):
            call = asyncio.create_task(fallen.get(f"k{number}"))
            if turn % 3:
                for _ in range(turn % 7):
                    await asyncio.sleep(0)
                cancelled += call.cancel()
            with suppress(asyncio.CancelledError):
                wrong += await call != number

    await asyncio.gather(*(caller(number) for number in range(50)))
    assert wrong == 0
    assert cancelled > 500
    assert await asyncio.gather(*(fallen.get(f"k{n}") for n in range(50))) == list(range(50))


@pytest.mark.timed
async def test_it_is_used_again_after_an_outage(place: Place, connect: Any) -> None:
    cache = await connect(place.url, tracked=False, deadline=0.1)
    await cache.set("k", "v")
    for server in place.servers:
        server.pause()
    try:
        _, took = await timed(cache.get("k"))
        assert took < 0.15
        await until(lambda: not cache.connected)
        _, took = await timed(cache.get("k"))
        assert took < 0.02
    finally:
        for server in place.servers:
            server.resume()
    await until(lambda: cache.connected, 5)
    assert await cache.get("k") == "v"


async def test_a_cluster_has_no_second_database(
    clusters: dict[str, list[RedisServer]], make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (server,) = clusters["cluster of one"]
    cache = make_cache(server.url.replace("/0", "/3"), connect_wait=1.0)
    assert await cache.initialize() is False
    assert await cache.get("k") is None
    assert "Connection failed" in caplog.text


@pytest.mark.parametrize("how", ["get", "get_many", "get_or_load"])
async def test_a_reply_overtaken_by_a_pending_invalidation_is_not_served(
    fallen: RedisCache, place: Place, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requested while the invalidation is pending, executed before its delivery, and received after it."""
    cache, engine = fallen, engine_of(fallen)
    assert await cache.set(KEY, "old", ttl=60)
    read, delivered = asyncio.Event(), asyncio.Event()

    async def late(reply: asyncio.Future[Any]) -> Any:
        outcome = await reply
        read.set()
        await delivered.wait()
        return outcome

    client: Any = engine.transport.client
    call, call_many = client.call, client.call_many

    def call_late(*command: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(late(call(*command))) if not read.is_set() else call(*command)

    def call_many_late(commands: Any) -> list[asyncio.Future[Any]]:
        replies = call_many(commands)
        return [asyncio.ensure_future(late(reply)) for reply in replies] if "GET" in str(commands) else replies

    monkeypatch.setattr(client, "call", call_late)
    monkeypatch.setattr(client, "call_many", call_many_late)
    monkeypatch.setattr(Engine, "redeliver_soon", lambda _: None)
    enqueue(cache, PendingInvalidations((KEY,)))
    ask: dict[str, Any] = {
        "get": lambda: cache.get(KEY),
        "get_many": lambda: cache.get_many([KEY]),
        "get_or_load": lambda: cache.get_or_load(KEY, Loader("new"), ttl=60),
    }
    asking = asyncio.create_task(ask[how]())
    await read.wait()
    await cache.invalidations.redeliver()
    assert not cache.invalidations.undelivered
    delivered.set()
    assert await asking in (None, {}, "new")


async def test_a_key_of_another_type_is_replaced(fallen: RedisCache, place: Place) -> None:
    """Servers before 7 hide WRONGTYPE in the text of a script's error."""
    assert await fallen.get(KEY) is None  # its node is connected
    for server in place.servers:
        with suppress(RedisReplyError):  # the slot of the key is on another node
            server.cli("RPUSH", KEY, "a list")
    assert await fallen.get_or_load(KEY, Loader("new"), ttl=60) == "new"
    assert await fallen.get(KEY) == "new"


async def test_a_cluster_is_named(
    clusters: dict[str, list[RedisServer]], make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    cache = make_cache(clusters["cluster of one"][0].url, connect_wait=5.0, deadline=2.0)
    await initialised(cache)
    lines = [record.getMessage() for record in caplog.records if record.name == "cache"]
    assert [line.partition("; ")[2] for line in lines] == ["a cluster)"]


async def test_a_proxy_in_front_of_a_cluster_is_one_server(
    clusters: dict[str, list[RedisServer]], make_cache: Any
) -> None:
    """It hides the nodes, and does not say which slot is whose."""
    (node,) = clusters["cluster of one"]
    words = "ERR unsupported command"
    async with refusing(node.port, {"HELLO": words, "CLUSTER": words, "CLIENT": words}) as port:
        cache = make_cache(f"redis://127.0.0.1:{port}/0", deadline=2.0, connect_wait=5.0)
        await initialised(cache)
        assert await cache.set("user:1:profile", "Ada", ttl=60)
        assert await cache.get("user:1:profile") == "Ada"
        await cache.close()
