"""Redis unavailable, silent, or recovering: every call returns in time, and nothing outdated is served."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from cache import RedisCache, keys
from cache.coherence.pending import MAX_USERS
from cache.core.engine import Engine
from tests.cache.loading.clock import seconds_until, timed
from tests.inside import engine_of
from tests.lag import within
from tests.real.redis.redis_server import RedisServer, unused_port
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
OPERATIONS = {
    "get": (lambda c: c.get("k", "default"), "default"),
    "get_many": (lambda c: c.get_many(["k"]), {}),
    "set": (lambda c: c.set("k", 1), False),
    "set_many": (lambda c: c.set_many({"k": 1}), 0),
    "delete": (lambda c: c.delete("k"), 0),
    "exists": (lambda c: c.exists("k"), 0),
    "expire": (lambda c: c.expire("k", 5), False),
    "ttl": (lambda c: c.ttl("k"), -2),
    "invalidate_pattern": (lambda c: c.invalidate_pattern("user:*"), 0),
    "clear_user_cache": (lambda c: c.clear_user_cache("1"), 0),
    "health_check": (lambda c: c.health_check(), False),
}
DEADLINE = 0.05
SLACK = 0.02


@pytest.mark.timed
async def test_initialising_without_redis_is_no_error_and_not_final(
    make_cache: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    port = unused_port()
    cache = make_cache(f"redis://ada:s3cret@127.0.0.1:{port}/0", connect_wait=0.25)
    connected, took = await timed(cache.initialize())
    assert (connected, cache.connected) == (False, False)
    assert took < 0.35
    assert "[REDIS] Warning: Connection failed" in caplog.text
    assert "s3cret" not in caplog.text
    assert caplog.text.count("Connection failed") == 1  # once per outage, not per attempt
    for call, neutral in OPERATIONS.values():
        assert await call(cache) == neutral
    stats = await cache.get_stats()
    assert stats["connection_errors"] >= len(OPERATIONS)
    assert (stats["enabled"], stats["connected"], stats["redis_keys"]) == (True, False, 0)
    with RedisServer(tmp_path / "late", port=port, args=["--user", "ada", "on", ">s3cret", "~*", "+@all"]):
        # A pending invalidation of the key could be delivered before or after the value.
        await until(lambda: cache.connected and not cache.invalidations.undelivered, 3)
        assert await cache.set("k", 1)
        assert await cache.get("k") == 1


@pytest.mark.timed
async def test_a_silent_server_at_start(own_redis: RedisServer, make_cache: Any) -> None:
    own_redis.pause()
    cache = make_cache(own_redis.url, connect_wait=0.25)
    _, took = await timed(cache.initialize())
    assert took < 0.35
    own_redis.resume()
    await until(lambda: cache.connected, 3)


@pytest.mark.timed
@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_stopped_server_costs_one_deadline(own_redis: RedisServer, make_cache: Any, name: str) -> None:
    cache = make_cache(own_redis.url, deadline=DEADLINE, connect_wait=5.0)
    await initialised(cache)
    own_redis.pause()
    call, neutral = OPERATIONS[name]
    answer, took = await timed(call(cache))
    assert answer == neutral
    assert took < DEADLINE + SLACK
    await until(lambda: not cache.connected, 2)
    answer, took = await timed(call(cache))  # known to be unavailable: no wait
    assert answer == neutral
    assert took < SLACK
    own_redis.resume()
    await until(lambda: cache.connected, 2)


@pytest.mark.timed
async def test_a_stalled_loop_does_not_make_a_call_hang(own_redis: RedisServer, make_cache: Any) -> None:
    """The case in which redis-py swallows a timeout: silent server, loop stalled beyond the deadline."""
    cache = make_cache(own_redis.url, deadline=DEADLINE, connect_wait=5.0)
    await initialised(cache)
    await asyncio.gather(*(cache.get("k") for _ in range(50)))  # a full pool of warm connections
    own_redis.pause()
    for _ in range(4):
        calls = [asyncio.create_task(timed(cache.get("k", "default"))) for _ in range(50)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(DEADLINE + 0.01)  # noqa: ASYNC251 - the stall under test
        async with within(DEADLINE + SLACK):
            done, hanging = await asyncio.wait(calls, timeout=5)
        assert not hanging
        assert {call.result()[0] for call in done} == {"default"}
        own_redis.resume()
        await until(lambda: cache.connected, 3)
        own_redis.pause()
    own_redis.resume()


async def test_a_stall_of_our_own_is_not_an_outage(cache: RedisCache, own_redis: RedisServer, make_cache: Any) -> None:
    cache = make_cache(own_redis.url, deadline=DEADLINE, connect_wait=5.0)
    await cache.initialize()
    await cache.set("k", "v")
    call = asyncio.create_task(cache.get("k"))
    for _ in range(5):
        await asyncio.sleep(0)
    time.sleep(DEADLINE * 2)  # noqa: ASYNC251 - the stall under test
    assert await call == "v"  # the reply had arrived already
    assert cache.connected


@pytest.mark.timed
async def test_killed_and_restarted_empty(
    own_redis: RedisServer, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cache")
    cache = make_cache(own_redis.url, connect_wait=5.0)
    await cache.initialize()
    await cache.set("k", "v")
    own_redis.kill()
    assert await cache.get("k", "default") == "default"
    await until(lambda: not cache.connected, 2)
    own_redis.start()
    assert await seconds_until(lambda: cache.connected) < 1
    assert await cache.get("k", "default") == "default"
    assert await cache.set("k", "w")
    lines = [record.getMessage() for record in caplog.records if record.name == "cache"]
    assert [line.split(" (")[0] for line in lines] == [
        "[REDIS] Connected",
        "[REDIS] Warning: Connection failed",
        "[REDIS] Connected",
    ]


async def test_a_pending_delete_is_delivered_before_anything_is_served(own_redis: RedisServer, make_cache: Any) -> None:
    cache = make_cache(own_redis.url, connect_wait=5.0)
    await cache.initialize()
    for key in ("deleted", "overwritten", "user:1:profile", "user:2:profile", "kept"):
        await cache.set(key, "old")
    own_redis.pause()
    assert await cache.delete("deleted") == 0
    assert await cache.set("overwritten", "new") is False
    assert (await cache.invalidate("user:1:*")).complete is False
    own_redis.resume()
    served: set[Any] = set()
    while not cache.connected:
        served |= {await cache.get("deleted"), await cache.get("overwritten"), await cache.get("user:1:profile")}
        await asyncio.sleep(0.002)
    for key in ("deleted", "overwritten", "user:1:profile"):
        assert await cache.get(key) in (None, "new")
    assert "old" not in served
    await until(lambda: own_redis.cli("EXISTS", "deleted", "user:1:profile") == 0)
    assert await cache.get("user:2:profile") == "old"
    assert await cache.get("kept") == "old"


async def test_an_invalidation_redis_refuses_is_still_not_served(own_redis: RedisServer, make_cache: Any) -> None:
    cache = make_cache(own_redis.url, connect_wait=5.0)
    await cache.initialize()
    await cache.set("k", "old")
    own_redis.cli("ACL", "SETUSER", "default", "-unlink")
    assert await cache.delete("k") == 0
    assert await cache.get("k", "default") == "default"
    own_redis.cli("ACL", "SETUSER", "default", "+unlink")
    await until(lambda: own_redis.cli("EXISTS", "k") == 0)
    assert await cache.set("k", "new")
    assert await cache.get("k") == "new"


@pytest.mark.parametrize("how", ["set", "get_or_load"])
async def test_an_invalidation_pending_during_a_set_stays_pending(
    own_redis: RedisServer, make_cache: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value is older: its write does not acknowledge a later invalidation that was never sent."""
    key = keys.profile("me")
    cache = make_cache(own_redis.url, deadline=2.0, connect_wait=5.0)
    await initialised(cache)
    assert await cache.set(keys.profile("other"), "brings the scripts")
    wire, loading = engine_of(cache).transport.client.active, asyncio.Event()
    await until(lambda: not wire.in_flight)

    async def load() -> str:
        loading.set()
        return "old"

    store = cache.set(key, "old", ttl=60) if how == "set" else cache.get_or_load(key, load, ttl=60)
    storing = asyncio.create_task(store)
    if how == "get_or_load":
        await loading.wait()
    while not wire.in_flight:  # noqa: ASYNC110  sent, and no reply yet: until() would let it in
        await asyncio.sleep(0)
    with monkeypatch.context() as busy:
        busy.setattr(wire, "capacity", 0)  # full
        busy.setattr(Engine, "redeliver_soon", lambda _: None)  # it would be rejected too
        assert await cache.delete(key) == 0
        assert await storing in (True, "old")
    assert await cache.get(key) is None
    await until(lambda: not cache.invalidations.undelivered)
    assert own_redis.cli("EXISTS", key) == 0


async def test_disable_and_enable_at_run_time(redis_server: RedisServer, make_cache: Any) -> None:
    cache = make_cache(redis_server.url, deadline=2.0, connect_wait=5.0)
    await cache.initialize()
    await cache.set("k", "v")
    await cache.set("gone", "v")
    cache.disable()
    await until(lambda: "companion-cache" not in redis_server.cli("CLIENT", "LIST"))
    redis_server.cli("CONFIG", "RESETSTAT")
    for call, neutral in OPERATIONS.values():
        assert await call(cache) == neutral
    await cache.delete("gone")
    stats = await cache.get_stats()
    assert (stats["enabled"], stats["connected"]) == (False, False)
    assert await cache.initialize() is False
    assert "cmdstat_get" not in redis_server.cli("INFO", "commandstats")
    cache.enable()
    cache.disable()
    cache.enable()
    await until(lambda: cache.connected)
    assert await cache.get("gone") is None  # deleted while the cache was switched off
    assert await cache.set("k", "w")
    assert await cache.get("k") == "w"
    engine_of(cache).pending.add("k")
    await until(lambda: not cache.invalidations.undelivered)  # maintenance goes on


async def test_wrong_password_is_an_outage_not_a_crash(
    tmp_path: Any, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(tmp_path / "r", password="right") as server:
        cache = make_cache(server.url.replace("right", "wr0ng"), connect_wait=0.5)
        assert await cache.initialize() is False
        assert await cache.get("k") is None
        assert "wr0ng" not in caplog.text
        assert "Connection failed" in caplog.text


async def test_a_server_that_quotes_what_it_refuses_is_not_quoted(
    tmp_path: Any, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A server without HELLO and AUTH echoes the arguments in its error, the password included."""
    unknown = [part for command in ("AUTH", "HELLO") for part in ("--rename-command", command, "")]
    with RedisServer(tmp_path / "r", args=unknown) as server:
        cache = make_cache(server.url.replace("redis://", "redis://ada:s3cret@"), connect_wait=0.5)
        assert await cache.initialize() is False
        await until(lambda: "Connection failed" in caplog.text)
    assert "refused (ERR)" in caplog.text
    assert "s3cret" not in caplog.text


async def test_nothing_is_left_after_close(own_redis: RedisServer, make_cache: Any) -> None:
    before = asyncio.all_tasks()
    cache = make_cache(own_redis.url, connect_wait=5.0)
    await cache.initialize()
    await asyncio.gather(*(cache.get(f"k{n}") for n in range(100)))
    await cache.close()
    assert asyncio.all_tasks() == before
    await until(lambda: "companion-cache" not in own_redis.cli("CLIENT", "LIST"))
    own_redis.pause()
    cache = make_cache(own_redis.url)
    await cache.initialize()
    async with within(1.5):
        await cache.close()
    own_redis.resume()


async def test_what_was_closed_does_not_connect_again_by_itself(own_redis: RedisServer, connect: Any) -> None:
    cache = await connect(own_redis.url)
    await cache.close()
    assert await cache.set("k", "v") is False
    assert await cache.get("k") is None
    assert (await cache.invalidate("user:*")).complete is False
    assert engine_of(cache).transport.client is None
    await until(lambda: "companion-cache" not in own_redis.cli("CLIENT", "LIST"))
    await cache.initialize()
    await until(lambda: cache.connected)
    assert await cache.set("k", "v")


OTHERS = ("user:other:profile", "user:me:orders", "reports:today", "session of another application", "users")
PENDING = {
    "more patterns than are remembered, of one user": (
        [lambda cache, n=n: cache.invalidate(f"no-such-key-{n}", user_id="me") for n in range(150)],
        {"user:me:profile"},
    ),
    "patterns of more users than are remembered": (
        [lambda cache, n=n: cache.clear_user_cache(f"u{n}") for n in range(MAX_USERS + 1)],
        {"user:me:profile", "user:other:profile"},
    ),
    "more keys than are remembered": (
        [lambda cache, n=n: cache.delete(*(f"user:{n}:memory:{m}" for m in range(100))) for n in range(101)],
        {"user:me:profile", "user:other:profile"},
    ),
    "more keys of no user than are remembered": (
        [lambda cache, n=n: cache.delete(*(f"reports:{n}:{m}" for m in range(100))) for n in range(101)],
        set(),
    ),
}


@pytest.mark.parametrize("what", PENDING)
async def test_too_much_to_remember_reaches_users_at_most(own_redis: RedisServer, make_cache: Any, what: str) -> None:
    """When pending invalidations overflow, at most our keys of users are cleared, and no other application's."""
    operations, gone = PENDING[what]
    for key in ("user:me:profile", *OTHERS):
        own_redis.cli("SET", key, "x")
    cache = make_cache(own_redis.url, connect_wait=5.0)
    await initialised(cache)
    own_redis.pause()
    await cache.get("k")
    await until(lambda: not cache.connected)
    for do in operations:
        await do(cache)
    own_redis.resume()
    await until(lambda: cache.connected and not cache.invalidations.undelivered)
    assert set(own_redis.cli("KEYS", "*")) - {"system:server", "system:stats"} == {"user:me:profile", *OTHERS} - gone


async def test_rights_to_fill_are_remembered_within_the_same_bound(own_redis: RedisServer, make_cache: Any) -> None:
    """When pending leases overflow, all leases of users are cleared, and nothing else."""
    for key in ("user:me:profile", "reports:today", "lease:{reports:today}", keys.lease("user:me:profile")):
        own_redis.cli("SET", key, "x")
    cache = make_cache(own_redis.url, connect_wait=5.0)
    await initialised(cache)
    pending = engine_of(cache).pending
    own_redis.pause()
    await cache.get("k")
    await until(lambda: not cache.connected)
    pending.add(keys.lease("user:me:profile"))
    for n in range(20_000):
        pending.add(keys.lease(keys.profile(str(n))))
    assert len(pending.invalidations.keys) <= 10_000
    assert pending.newest_invalidation("user:me:profile")
    own_redis.resume()
    await until(lambda: cache.connected and not cache.invalidations.undelivered)
    assert set(own_redis.cli("KEYS", "*")) - {"system:server", "system:stats"} == {
        "reports:today",
        "lease:{reports:today}",
    }
