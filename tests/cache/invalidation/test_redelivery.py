"""Rejected invalidations stay pending and do not block others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache import RedisCache, keys
from cache.coherence.pending import MAX_PATTERNS_PER_USER, PendingInvalidations, PendingPattern, PendingQueue
from cache.exceptions import CommandRejected
from tests.inside import engine_of, enqueue
from tests.real.redis.redis_server import RedisServer
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
KEY, NOTE = keys.profile("1"), "user:1:note"


@pytest.fixture
async def narrow(redis_server: RedisServer, connect: Any) -> Any:
    """A cache with rights on the layer's own prefixes only."""
    own = [f"~{prefix}*" for prefix in ("user:", "lease:", "stale:", "index:", "system:")]
    redis_server.cli("ACL", "SETUSER", "narrow", "on", ">pw", "resetkeys", *own, "&*", "+@all")
    yield await connect(redis_server.url.replace("redis://", "redis://narrow:pw@"))
    redis_server.cli("ACL", "DELUSER", "narrow")


@pytest.mark.parametrize(
    "refused",
    [PendingInvalidations(("app:1",)), PendingInvalidations(patterns=(PendingPattern("app:*", None),))],
    ids=["key", "pattern"],
)
async def test_what_is_refused_holds_up_nothing_else(
    narrow: RedisCache, redis_server: RedisServer, refused: PendingInvalidations
) -> None:
    redis_server.cli("MSET", "app:1", "another user's", KEY, "old", NOTE, "old")
    flushed = redis_server.cli("HGET", keys.system_stats(), "cache_misses")
    assert await narrow.get("user:1:nothing") is None
    pending = PendingInvalidations(
        (*refused.keys, KEY), (*refused.patterns, PendingPattern(keys.user_pattern("1"), "1"))
    )
    enqueue(narrow, pending)
    await until(lambda: narrow.invalidations.pending == refused)
    await until(lambda: redis_server.cli("EXISTS", "app:1", KEY, NOTE) == 1)  # the scan finds the note
    await until(lambda: not narrow.invalidations.background_scan.running)
    assert not narrow.invalidations.undelivered_for("1")
    assert narrow.invalidations.undelivered
    await until(lambda: redis_server.cli("HGET", keys.system_stats(), "cache_misses") != flushed)


async def test_one_key_among_many_is_found(narrow: RedisCache, redis_server: RedisServer) -> None:
    names = [f"user:{number}:note" for number in range(250)]
    for name in names:
        redis_server.cli("SET", name, "old")
    enqueue(narrow, PendingInvalidations((*names[:7], "app:1", *names[7:])))
    await until(lambda: narrow.invalidations.pending == PendingInvalidations(("app:1",)))
    assert redis_server.cli("EXISTS", *names) == 0


async def test_many_rejected_keys_hold_up_neither_keys_nor_patterns(
    narrow: RedisCache, redis_server: RedisServer
) -> None:
    rejected = [f"app:{number}" for number in range(150)]
    redis_server.cli("MSET", KEY, "old", NOTE, "old")
    enqueue(narrow, PendingInvalidations((*rejected, KEY), (PendingPattern("user:1:n*", "1"),)))
    await until(lambda: not engine_of(narrow).pending.masks(KEY) and not engine_of(narrow).pending.masks(NOTE))
    assert redis_server.cli("EXISTS", KEY, NOTE) == 0
    assert set(narrow.invalidations.pending.keys) == set(rejected)


async def test_a_server_that_takes_nothing_is_left_alone(
    redis_server: RedisServer, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, deliveries = await connect(redis_server.url), 0

    async def read_only(*_: Any, **__: Any) -> int:
        nonlocal deliveries
        deliveries += 1
        raise CommandRejected("READONLY you are asking a replica")

    with monkeypatch.context() as patch:
        patch.setattr(engine_of(cache).transport, "unlink", read_only)
        engine_of(cache).pending.add(*(f"k{number}" for number in range(600)))
        with pytest.raises(CommandRejected):
            await cache.invalidations.redeliver()
        assert deliveries == 1
    await until(lambda: not cache.invalidations.undelivered)


async def test_rejected_patterns_of_many_users_hold_up_no_other(redis_server: RedisServer, connect: Any) -> None:
    permitted = [f"~{name}" for name in ("user:good:*", "*:{user:good:*", "index:{good}", "system:*")]
    redis_server.cli("ACL", "SETUSER", "one", "on", ">pw", "resetkeys", *permitted, "&*", "+@all")
    cache = await connect(redis_server.url.replace("redis://", "redis://one:pw@"))
    users = [f"bad{number}" for number in range(40)]
    enqueue(
        cache, PendingInvalidations(patterns=tuple(PendingPattern(f"user:{user}:*", user) for user in (*users, "good")))
    )
    assert engine_of(cache).pending.masks(keys.profile("good"))
    await until(lambda: not engine_of(cache).pending.masks(keys.profile("good")))
    assert {pattern.user_id for pattern in cache.invalidations.pending.patterns} == set(users)
    redis_server.cli("ACL", "DELUSER", "one")


async def test_patterns_of_users_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.coherence.pending.MAX_USERS", 100)
    pending = PendingQueue()
    for number in range(3 * MAX_PATTERNS_PER_USER):
        pending.add_pattern(f"user:1:memory:{number}*", None)
    assert PendingPattern(keys.user_pattern("1"), "1", own=True) in pending.invalidations.patterns
    assert len(pending.invalidations.patterns) <= MAX_PATTERNS_PER_USER
    assert pending.masks("user:1:memory:3")
    assert not pending.masks("user:12:memory:3")
    for number in range(300):
        pending.add_pattern(f"user:{number}:*", None)
        pending.add_pattern(f"user:*:memory:{number}", None)
    assert len(pending.invalidations.patterns) <= 201
    assert all(pending.masks(f"user:{number}:profile") for number in range(300))
    assert not pending.masks("app:1")
    pending.add_pattern("app:*", None)
    assert PendingPattern("app:*", None) in pending.invalidations.patterns


@pytest.mark.parametrize(
    ("pattern", "about"),
    [
        ("*", {"1", "2"}),
        ("user:*", {"1", "2"}),
        ("user:1*", {"1"}),
        ("user:1:x", {"1"}),
        ("user:2:*", {"2"}),
        ("user:3:*", set()),
        ("app:*", set()),
    ],
)
def test_whose_a_debt_may_be(pattern: str, about: set[str]) -> None:
    pending = PendingQueue()
    pending.add_pattern(pattern, None)
    assert pending.undelivered_for({"1", "2"}) == about
    pending.add("user:2:profile", "app:1")
    assert pending.undelivered_for({"1", "2"}) == about | {"2"}
    pending.quarantine("its server", lambda _: True)
    assert pending.undelivered_for({"1", "2"}) == {"1", "2"}


async def test_a_mistake_ends_no_housekeeping(
    redis_server: RedisServer, connect: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = await connect(redis_server.url)
    redeliver = cache.invalidations.redeliver

    rounds = 0

    async def broken() -> None:
        nonlocal rounds
        rounds += 1
        raise ValueError("what a user said")

    redis_server.cli("SET", KEY, "old")
    with monkeypatch.context() as patch:
        patch.setattr(cache.invalidations, "redeliver", broken)
        engine_of(cache).pending.add(KEY)
        await until(lambda: rounds >= 3)
    assert caplog.text.count("maintenance failed (ValueError)") == 1
    assert cache.invalidations.redeliver == redeliver
    await until(lambda: not cache.invalidations.undelivered)
    assert "what a user said" not in caplog.text


def test_what_is_pending_is_delivered_by_a_cache_that_begins_again_in_another_loop(redis_server: RedisServer) -> None:
    """What waits for an outage, or for something pending, belonged to the first loop: nothing was delivered."""
    cache = RedisCache(redis_server.url)

    async def deliver() -> None:
        await initialised(cache)
        enqueue(cache, PendingInvalidations((KEY,)))
        await until(lambda: not cache.invalidations.undelivered)
        await cache.close()

    asyncio.run(deliver())
    asyncio.run(deliver())
