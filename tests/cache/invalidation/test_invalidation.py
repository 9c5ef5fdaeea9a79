"""Invalidation: which keys are removed, counts, and interrupted scans."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from cache import RedisCache, keys
from cache.coherence import user_index
from cache.coherence.glob import matches
from cache.coherence.pending import PendingQueue
from cache.invalidation import background_scan
from cache.invalidation import invalidator as invalidation
from cache.invalidation.scan import delete_matching
from tests.cache.loading.loader import Loader
from tests.inside import engine_of
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = [pytest.mark.integration, pytest.mark.every_server]


@pytest.fixture(params=["small keyspace", "large keyspace"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the keyspace counts as small (scan) or as large (index, and a background scan)."""
    if request.param == "large keyspace":
        monkeypatch.setattr(invalidation, "SMALL", 0)
    return str(request.param)


def of_users(server: RedisServer) -> set[str]:
    return set(server.cli("KEYS", "user:*"))


async def written(cache: RedisCache, user: str) -> int:
    """Write a user's keys of every kind and return their number."""
    await cache.set(keys.profile(user), "p", ttl=3600)
    await cache.get_or_load(keys.greeting_instructions(user), Loader("g"), ttl=120, stale_for=600)
    await cache.set_many({keys.settings(user): 1, keys.state(user): 2}, ttl=600)
    await cache.set(keys.memory(user, "m1"), "m", ttl=300)
    await cache.get_or_load(f"user:{user}:notes:today", Loader("n"), ttl=60, stale_for=60)
    await cache.set(f"user:{user}:for ever", "f")
    await cache.get_or_load(f"user:{user}:for a year", Loader("y"), ttl=365 * 86_400)
    return 8


async def test_one_user_is_cleared_and_no_other_key(cache: RedisCache, redis_server: RedisServer, size: str) -> None:
    mine = await written(cache, "1")
    others = ["12", "1.2", "1@x", "2", "a-1", "1~"]
    for other in others:
        await written(cache, other)
    redis_server.cli("SET", "temp:1:draft", "kept")
    before = of_users(redis_server)
    assert await cache.clear_user_cache("1") == mine
    await settled(cache)
    assert of_users(redis_server) == {key for key in before if not key.startswith("user:1:")}
    assert not redis_server.cli("KEYS", "lease:*")
    assert not redis_server.cli("KEYS", "stale:{user:1:*")
    assert len(redis_server.cli("KEYS", "stale:*")) == 2 * len(others)
    assert redis_server.cli("EXISTS", "temp:1:draft") == 1
    assert await cache.clear_user_cache("1") == 0


async def settled(cache: RedisCache) -> None:
    """Wait until no scan is in progress."""
    await until(lambda: not cache.invalidations.background_scan.running)


async def test_keys_written_by_others_are_removed_too(cache: RedisCache, redis_server: RedisServer, size: str) -> None:
    await written(cache, "1")
    for n in range(50):
        redis_server.cli("SET", f"user:1:by hand:{n}", "x")
        redis_server.cli("SET", f"user:2:by hand:{n}", "x")
    redis_server.cli("SET", b"user:1:\xff\xfe", "not even UTF-8")
    assert await cache.clear_user_cache("1") >= 8
    await until(lambda: not redis_server.cli("KEYS", "user:1:*"))
    assert len(redis_server.cli("KEYS", "user:2:*")) == 50


async def test_a_large_keyspace_is_not_scanned_before_the_answer(
    cache: RedisCache, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidation, "SMALL", 0)
    mine = await written(cache, "1")
    scans_before_the_answer: list[int] = []
    by_name = PendingQueue.deleted_by_name

    def answered(*args: Any) -> None:
        scans_before_the_answer.append(redis_server.calls("scan"))
        by_name(*args)

    monkeypatch.setattr(PendingQueue, "deleted_by_name", answered)
    redis_server.cli("CONFIG", "RESETSTAT")
    assert await cache.clear_user_cache("1") == mine
    assert scans_before_the_answer == [0]
    await settled(cache)
    assert redis_server.calls("scan") > 0


async def test_what_is_written_again_meanwhile_stays(
    cache: RedisCache, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidation, "SMALL", 0)
    await written(cache, "1")
    assert await cache.clear_user_cache("1") == 8
    await written(cache, "1")
    await settled(cache)
    assert len(redis_server.cli("KEYS", "user:1:*")) == 8


async def test_one_scan_serves_all_waiters(
    cache: RedisCache, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidation, "SMALL", 0)
    for n in range(40):
        redis_server.cli("SET", f"user:{n}:by hand", "x")
    redis_server.cli("CONFIG", "RESETSTAT")
    await asyncio.gather(*(cache.clear_user_cache(str(n)) for n in range(40)))
    await until(lambda: not of_users(redis_server))
    await settled(cache)
    assert redis_server.calls("scan") <= 10


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """The keyspace counts as large, and scans are blocked until this event is set."""
    gate = asyncio.Event()

    async def held(*args: Any, **options: Any) -> None:
        await gate.wait()
        await delete_matching(*args, **options)

    monkeypatch.setattr(invalidation, "SMALL", 0)
    monkeypatch.setattr(background_scan, "delete_matching", held)
    return gate


async def test_what_a_walk_may_still_find_is_not_served(
    cache: RedisCache, redis_server: RedisServer, gate: asyncio.Event
) -> None:
    redis_server.cli("MSET", "user:1:by hand", "x", "user:1:other", "x", "user:2:by hand", "x")
    assert await cache.get("user:1:by hand") == "x"
    outcome = await cache.invalidate("user:1:*", user_id="1")
    assert (outcome.complete, outcome.deleted, cache.invalidations.undelivered) == (True, 0, False)
    assert await cache.get("user:1:by hand") is None
    assert await cache.get_many(["user:1:by hand", "user:2:by hand"]) == {"user:2:by hand": "x"}
    assert await cache.get_or_load("user:1:other", Loader("new"), ttl=60) == "new"
    assert await cache.get_or_load("user:1:other", Loader("newer"), ttl=60) == "new"
    gate.set()
    await settled(cache)
    assert not engine_of(cache).pending
    assert of_users(redis_server) == {"user:1:other", "user:2:by hand"}
    redis_server.cli("SET", "user:1:by hand", "again")
    assert await cache.get("user:1:by hand") == "again"


async def test_the_last_good_value_of_what_no_index_knows_goes_too(
    cache: RedisCache, redis_server: RedisServer, size: str
) -> None:
    await cache.get_or_load("user:1:for a year", Loader("x"), ttl=365 * 86_400, stale_for=60)
    redis_server.cli("DEL", keys.index("1"))  # it ended before the value did
    redis_server.cli("SET", b"user:1:\xff", "not even UTF-8")
    await cache.clear_user_cache("1")
    await settled(cache)
    assert redis_server.cli("KEYS", "*user:1:*") == []


async def test_a_last_good_value_that_outlives_its_value_and_the_index_goes_too(
    cache: RedisCache, redis_server: RedisServer, size: str
) -> None:
    await cache.get_or_load("user:1:notes", Loader("x"), ttl=60, stale_for=30 * 86_400)
    redis_server.cli("DEL", keys.index("1"), "user:1:notes")
    await cache.clear_user_cache("1")
    await settled(cache)
    assert redis_server.cli("KEYS", "*user:1:*") == []


@pytest.mark.parametrize("how", ["large", "no set"])
async def test_what_an_unusable_index_does_not_name_is_found_by_a_scan(
    cache: RedisCache, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(invalidation, "SMALL", 0)
    monkeypatch.setattr(user_index, "MAX_NAMES", 3)
    for number in range(6):
        await cache.set(f"user:1:note:{number}", "x", ttl=60)
    redis_server.cli("SET", "user:1:by hand", "x")
    redis_server.cli("SET", b"user:1:\xff", "not even UTF-8")
    if how == "no set":
        redis_server.cli("SET", keys.index("1"), "by mistake")
    outcome = await cache.invalidate("user:1:note:[0-2]", user_id="1")
    assert (outcome.complete, cache.invalidations.undelivered) == (True, False)
    assert await cache.get_many([f"user:1:note:{number}" for number in range(6)]) == {
        f"user:1:note:{number}": "x" for number in (3, 4, 5)
    }
    await settled(cache)
    assert len(of_users(redis_server)) == 5
    await cache.set("user:1:note:0", "x", ttl=60)
    assert "note:0" in redis_server.cli("SMEMBERS", keys.index("1"))
    await cache.clear_user_cache("1")
    await settled(cache)
    assert of_users(redis_server) == set()


async def test_an_index_holds_no_name_of_what_was_deleted_by_name(
    cache: RedisCache, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidation, "SMALL", 0)
    for name in ("note:1", "note:2", "other"):
        await cache.set(f"user:1:{name}", "x", ttl=60)
    redis_server.cli("DEL", "user:1:note:2")  # expired
    await cache.invalidate_pattern("user:1:note:*")
    assert redis_server.cli("SMEMBERS", keys.index("1")) == ["other"]


async def test_a_recreated_index_exempts_no_unindexed_key_from_the_scan(
    cache: RedisCache, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, gate: asyncio.Event
) -> None:
    monkeypatch.setattr(invalidation, "SMALL", 0)
    monkeypatch.setattr(user_index, "MAX_NAMES", 3)
    redis_server.cli("SET", "user:1:by hand", "old")
    await cache.clear_user_cache("1")  # while the scan is blocked
    for number in range(6):
        await cache.set(f"user:1:note:{number}", "x", ttl=60)
    await cache.invalidate("user:1:memory:*", user_id="1")
    gate.set()
    await settled(cache)
    assert not redis_server.cli("EXISTS", "user:1:by hand")


async def test_values_stored_during_a_scan_are_served(
    cache: RedisCache, redis_server: RedisServer, gate: asyncio.Event
) -> None:
    await written(cache, "1")
    assert await cache.clear_user_cache("1") == 8
    assert await cache.get(keys.profile("1")) is None
    await written(cache, "1")
    await cache.set("user:1:new", "n", ttl=60)
    served = await cache.get_many(sorted(of_users(redis_server)))
    assert (len(served), served["user:1:new"], served["user:1:notes:today"]) == (9, "n", "n")
    assert await cache.clear_user_cache("1") == 9  # again, before the first scan has ended
    assert await cache.get("user:1:new") is None
    gate.set()
    await settled(cache)
    assert not of_users(redis_server)


async def test_what_another_process_stores_meanwhile_under_a_known_name_is_served(
    cache: RedisCache, redis_server: RedisServer, connect: Any, gate: asyncio.Event
) -> None:
    other = await connect(redis_server.url)
    await written(cache, "1")
    await cache.clear_user_cache("1")
    await written(other, "1")
    assert len(await cache.get_many(sorted(of_users(redis_server)))) == 8
    gate.set()


async def test_a_scan_cancelled_by_closing_stays_pending(
    redis_server: RedisServer, connect: Any, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_scan, "ON_CLOSE", 0.01)
    cache = await connect(redis_server.url)
    redis_server.cli("SET", "user:1:by hand", "x")
    await cache.clear_user_cache("1")
    await cache.close()
    assert cache.invalidations.undelivered
    assert engine_of(cache).pending.masks("user:1:by hand")


@pytest.mark.one_server
async def test_a_rejected_scan_is_retried(
    own_redis: RedisServer, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidation, "SMALL", 0)
    cache = await connect(own_redis.url)
    own_redis.cli("SET", "user:1:by hand", "x")
    own_redis.cli("ACL", "SETUSER", "default", "-scan")
    assert (await cache.invalidate("user:1:*", user_id="1")).complete
    await until(lambda: cache.invalidations.undelivered)
    assert await cache.set(keys.profile("1"), "Ada", ttl=60)
    assert await cache.get_many(["user:1:by hand", keys.profile("1")]) == {keys.profile("1"): "Ada"}
    own_redis.cli("ACL", "SETUSER", "default", "+scan")
    await until(lambda: not engine_of(cache).pending)
    assert of_users(own_redis) == {keys.profile("1")}


async def test_maintenance_begins_no_second_scan(
    cache: RedisCache, redis_server: RedisServer, gate: asyncio.Event
) -> None:
    await cache.clear_user_cache("1")
    walk = cache.invalidations.background_scan.task
    await cache.invalidations.redeliver()
    assert cache.invalidations.background_scan.task is walk
    redis_server.cli("CONFIG", "RESETSTAT")
    gate.set()
    await settled(cache)
    assert redis_server.calls("scan") == 3  # twice for values, and for what guards them


async def test_closing_waits_for_a_scan(
    redis_server: RedisServer, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation is a process, which may end right after a request to erase data."""
    monkeypatch.setattr(invalidation, "SMALL", 0)
    cache = await connect(redis_server.url)
    redis_server.cli("EVAL", "for n = 1, 5000 do redis.call('SET', 'user:' .. n .. ':by hand', 'x') end", 0)
    await cache.clear_user_cache("77")
    await cache.close()
    assert redis_server.cli("EXISTS", "user:77:by hand") == 0
    assert len(of_users(redis_server)) == 4999


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "allkeys-lru"])
async def test_what_an_evicted_index_does_not_name_is_masked_until_a_scan_has_deleted_it(
    own_redis: RedisServer, connect: Any, gate: asyncio.Event, policy: str
) -> None:
    own_redis.cli("CONFIG", "SET", "maxmemory", "64mb")
    own_redis.cli("CONFIG", "SET", "maxmemory-policy", policy)
    cache = await connect(own_redis.url)
    await written(cache, "1")
    own_redis.cli("DEL", keys.index("1"))  # evicted
    own_redis.cli("SET", "user:1:by hand", "x")
    own_redis.cli("CONFIG", "RESETSTAT")
    assert await cache.clear_user_cache("1") == 4  # the families
    assert own_redis.calls("scan") == 0
    assert await cache.get_many(sorted(of_users(own_redis))) == {}
    assert len(of_users(own_redis)) == 5
    gate.set()
    await settled(cache)
    assert own_redis.cli("KEYS", "*user:1:*") == []


async def test_a_narrower_pattern_for_one_user(cache: RedisCache, redis_server: RedisServer, size: str) -> None:
    await written(cache, "1")
    await written(cache, "2")
    redis_server.cli("SET", "user:1:notes:by hand", "x")
    redis_server.cli("SET", "user:1:other:by hand", "x")
    outcome = await cache.invalidate("*:notes:*", user_id="1")
    assert outcome.complete
    assert outcome.deleted >= 1
    await settled(cache)
    assert not redis_server.cli("KEYS", "user:1:notes:*")
    assert redis_server.cli("EXISTS", "user:1:other:by hand", "user:2:notes:today") == 2
    assert (await cache.invalidate("user:2:*", user_id="1")).deleted == 0
    assert len(redis_server.cli("KEYS", "user:2:*")) == 8


# -- patterns --------------------------------------------------------------------------------------------

PATTERNS = [
    "user:[1",
    "user:[12",
    "user:[^1",
    "user:[1-",
    "user:1\\",
    "user:[a-]",
    "user:[1\\]2]",
    "user:[]x",
    "us?r:1*",
    "user:?",
    "user:??",
    "user:[é",
]
NAMES = [
    "user:1",
    "user:2",
    "user:12",
    "user:1\\",
    "user:-",
    "user:a",
    "user:`",
    "user:]",
    "user:[1",
    "user:x",
    "user:^",
    "user:é",
    "user:è",
]


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_odd_patterns_reach_what_redis_says_and_stop_its_fills(
    cache: RedisCache, redis_server: RedisServer, pattern: str
) -> None:
    for name in NAMES:
        redis_server.cli("SET", name, "v")
    meant = set(redis_server.cli("KEYS", pattern))
    assert meant == {name for name in NAMES if matches(pattern, name)}
    redis_server.cli("FLUSHALL")
    loaders = {name: Loader("old", held=True) for name in NAMES}
    loads = [asyncio.create_task(cache.get_or_load(name, loader, ttl=60)) for name, loader in loaders.items()]
    await until(lambda: all(loader.calls for loader in loaders.values()))
    await cache.invalidate_pattern(pattern)
    for loader in loaders.values():
        loader.gate.set()
    await asyncio.gather(*loads)
    filled = {name for name in NAMES if redis_server.cli("EXISTS", name)}
    assert filled == set(NAMES) - meant


# -- true counts, and interruptions ----------------------------------------------------------------------


async def test_the_count_is_true_while_others_write_and_delete(cache: RedisCache, redis_server: RedisServer) -> None:
    redis_server.cli("EVAL", "for n = 1, 20000 do redis.call('SET', 'user:' .. n .. ':profile', 'x') end", 0)
    draw = random.Random(1)
    taken = 0
    sweeping = asyncio.create_task(cache.invalidate_pattern("user:*:profile"))
    while not sweeping.done():
        taken += redis_server.cli("DEL", f"user:{draw.randrange(1, 20001)}:profile")
        redis_server.cli("SET", f"user:{draw.randrange(1, 20001)}:settings", "kept")
        await asyncio.sleep(0)
    left = len(redis_server.cli("KEYS", "user:*:profile"))
    assert sweeping.result() + taken + left == 20_000
    assert left == 0
    assert redis_server.cli("KEYS", "user:*:settings")


@pytest.mark.one_server
async def test_the_count_is_true_while_what_is_pending_is_redelivered(
    cache: RedisCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidation, "SMALL", 0)
    expected = await written(cache, "1")
    delete = cache.invalidations.delete

    async def redeliver_first(names: list[str]) -> int:
        monkeypatch.setattr(cache.invalidations, "delete", delete)
        await cache.invalidations.redeliver()
        return await delete(names)

    monkeypatch.setattr(cache.invalidations, "delete", redeliver_first)
    assert await cache.clear_user_cache("1") == expected


@pytest.mark.one_server
async def test_a_sweep_that_is_interrupted_is_finished_later(own_redis: RedisServer, connect: Any) -> None:
    cache = await connect(own_redis.url, deadline=0.5)
    own_redis.cli("EVAL", "for n = 1, 30000 do redis.call('SET', 'user:' .. n .. ':profile', 'x') end", 0)
    own_redis.cli("SET", "user:1:settings", "kept")
    sweeping = asyncio.create_task(cache.invalidate("user:*:profile"))
    await until(lambda: own_redis.cli("DBSIZE") < 29_000)
    own_redis.pause()
    outcome = await sweeping
    assert not outcome.complete
    assert 0 < outcome.deleted < 30_000
    assert cache.invalidations.undelivered
    own_redis.resume()
    await until(lambda: cache.connected)
    for _ in range(5):  # remaining keys are masked meanwhile
        assert await cache.get("user:30000:profile") is None
    await until(lambda: not cache.invalidations.undelivered)
    assert own_redis.cli("KEYS", "user:*:profile") == []
    assert await cache.get("user:1:settings") == "kept"


@pytest.mark.one_server
async def test_clearing_a_user_that_is_interrupted_is_finished_later(
    own_redis: RedisServer, connect: Any, size: str
) -> None:
    cache = await connect(own_redis.url, deadline=0.5)
    await written(cache, "1")
    await written(cache, "2")
    own_redis.cli("SET", "user:1:by hand", "x")
    own_redis.pause()
    assert await cache.clear_user_cache("1") == 0
    own_redis.resume()
    served = set()
    while cache.invalidations.undelivered:
        served |= {await cache.get(keys.profile("1")), await cache.get("user:1:by hand")}
        await asyncio.sleep(0.002)
    assert served == {None}
    await until(lambda: not own_redis.cli("KEYS", "user:1:*"))
    assert len(own_redis.cli("KEYS", "user:2:*")) == 8


# -- what an answer costs --------------------------------------------------------------------------------


async def test_an_answer_costs_no_scan_whatever_the_policy(
    own_redis: RedisServer, connect: Any, gate: asyncio.Event
) -> None:
    own_redis.cli("CONFIG", "SET", "maxmemory", "64mb")
    caches = [await connect(own_redis.url, encryption_keys=secrets) for secrets in ((), (bytes(32),))]
    for policy in ("noeviction", "volatile-lru", "allkeys-lru"):
        own_redis.cli("CONFIG", "SET", "maxmemory-policy", policy)
        for cache in caches:
            for clear in (
                lambda cache=cache: cache.clear_user_cache("1"),
                lambda cache=cache: cache.invalidate_pattern("user:1:*"),
                lambda cache=cache: cache.invalidate_pattern(keys.profile("1")),
                lambda cache=cache: cache.invalidate("user:1:*", user_id="1", own=True),
            ):
                mine = await written(cache, "1")
                own_redis.cli("CONFIG", "RESETSTAT")
                deleted = await clear()
                assert getattr(deleted, "deleted", deleted) in (mine, 1)
                assert own_redis.calls("scan") == 0
                assert own_redis.calls("unlink") == 2
    gate.set()
    for cache in caches:
        await settled(cache)
    assert own_redis.cli("KEYS", "*user:1:*") == []


async def test_one_scan_delivers_many_pending_patterns(own_redis: RedisServer, connect: Any) -> None:
    cache = await connect(own_redis.url, deadline=0.1)
    for number in range(20):
        own_redis.cli("MSET", f"user:{number}:by hand", "x", f"app:{number}:a", "x", f"app:{number}:b", "kept")
    own_redis.pause()
    assert not await cache.health_check()
    await until(lambda: not cache.connected)
    for number in range(20):
        await cache.invalidate_pattern(f"app:{number}:a*")
        await cache.invalidate_pattern(f"user:{number}:*")
    own_redis.resume()
    own_redis.cli("CONFIG", "RESETSTAT")
    await until(lambda: not engine_of(cache).pending)
    assert len(own_redis.cli("KEYS", "app:*")) == 20
    assert of_users(own_redis) == set()
    assert own_redis.calls("scan") <= 12  # two scans at most, of three passes each
