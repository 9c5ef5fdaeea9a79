"""getRedisCacheStats, clearUserCache and invalidateCache, called by a model in a real session."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from livekit.agents import Agent

from cache import get_redis_cache
from companion.voice.agent import CompanionAgent
from tests.real.redis.redis_server import RedisServer
from tests.tools.conversation import ObedientLLM, Person, Userdata, conversation
from tests.wait import until
from tools import CacheTools

pytestmark = pytest.mark.integration
STATS = [
    "enabled",
    "connected",
    "hit_rate",
    "cache_hits",
    "cache_misses",
    "connection_errors",
    "redis_memory",
    "status",
]
RESULT = ["success", "deleted_keys", "message"]


def one(user_id: Any, operator: Any = False) -> dict[str, Any]:
    """Session options that name the caller."""
    return {"userdata": Userdata(Person(user_id, operator))}


def assert_refused(answer: dict[str, Any]) -> None:
    """The documented shape, no keys deleted, and a message fit for speech."""
    assert list(answer) == RESULT
    assert (answer["success"], answer["deleted_keys"]) == (False, 0)
    assert re.fullmatch(r"[A-Z][^{}<>_\n]+[.!]", answer["message"]), answer["message"]
    assert "Error" not in answer["message"]


# -- the documented answers --------------------------------------------------------------------------------------


async def test_statistics_are_the_documented_ones(redis: RedisServer) -> None:
    cache = await get_redis_cache()
    await cache.set("user:abc-123:profile", "Name: Ada")
    for key in ("profile", "profile", "profile", "settings"):
        await cache.get(f"user:abc-123:{key}")
    async with conversation(CacheTools(), **one("abc-123")) as talk:
        answer = await talk.use("getRedisCacheStats")
    assert list(answer) == STATS
    memory = answer.pop("redis_memory")
    assert re.fullmatch(r"\d+\.\d\d[KMG]", memory)
    assert answer == {
        "enabled": True,
        "connected": True,
        "hit_rate": "75.0%",
        "cache_hits": 3,
        "cache_misses": 1,
        "connection_errors": 0,
        "status": "healthy",
    }


async def test_statistics_are_the_fleets(redis: RedisServer) -> None:
    redis.cli("HSET", "system:stats", "total_requests", 1447, "cache_hits", 1234, "cache_misses", 213)
    async with conversation(CacheTools(), **one("abc-123")) as talk:
        answer = await talk.use("getRedisCacheStats")
    assert (answer["cache_hits"], answer["cache_misses"], answer["hit_rate"]) == (1234, 213, "85.3%")


async def test_clearing_says_how_much_and_for_whom(redis: RedisServer) -> None:
    for name in ("profile", "greeting_instructions", "settings", "state", "memory:1"):
        redis.cli("SET", f"user:abc-123:{name}", "x")
    redis.cli("SET", "user:abc-1234:profile", "x")
    async with conversation(CacheTools(), **one("abc-123")) as talk:
        assert await talk.said_by("clearUserCache") == (
            '{"success": true, "deleted_keys": 5, "message": "Cleared 5 cached entries for user abc-123"}'
        )
        assert (await talk.use("clearUserCache"))["message"] == "Cleared 0 cached entries for user abc-123"
    assert set(keyspace(redis)) == {"user:abc-1234:profile"}


async def test_invalidating_says_how_much_and_what(redis: RedisServer) -> None:
    for number in range(23):
        redis.cli("MSET", f"user:{number}:profile", "x", f"user:{number}:settings", "x")
    async with conversation(CacheTools(), **one("ops", operator=True)) as talk:
        assert await talk.said_by("invalidateCache", pattern="user:*:profile") == (
            '{"success": true, "deleted_keys": 23, '
            '"message": "Invalidated 23 cache entries matching \'user:*:profile\'"}'
        )
    assert len(redis.cli("KEYS", "user:*:settings")) == 23
    assert redis.cli("KEYS", "user:*:profile") == []


# -- healthy, degraded, disconnected, disabled -------------------------------------------------------------------


async def test_status_follows_what_really_happens(
    own_redis: RedisServer, use_redis: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_redis(own_redis.url)
    monkeypatch.setenv("CACHE_DEADLINE_MS", "1000")  # one late answer among few would be "degraded"
    cache = await get_redis_cache()

    async with conversation(CacheTools(), **one("abc-123")) as talk:

        async def status() -> str:
            return str((await talk.use("getRedisCacheStats"))["status"])

        assert await status() == "healthy"
        own_redis.pause()
        await cache.get("user:abc-123:profile")
        await until(lambda: not cache.connected)
        assert await status() == "disconnected"
        own_redis.resume()
        await until(lambda: cache.connected)
        assert await status() == "degraded"  # of the few requests so far, more than one in a hundred failed
        errors = (await cache.get_stats())["connection_errors"]
        await cache.get_many(f"user:{number}:profile" for number in range(100 * errors))
        assert await status() == "healthy"
        cache.disable()
        assert await status() == "disabled"
        cache.enable()
        await until(lambda: cache.connected)
        assert await status() == "healthy"


@pytest.mark.parametrize(
    ("variable", "value", "status"),
    [("REDIS_ENABLED", "false", "disabled"), ("REDIS_URL", "redis://127.0.0.1:1/0", "disconnected")],
)
async def test_status_without_redis(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, status: str
) -> None:
    monkeypatch.setenv(variable, value)
    async with conversation(CacheTools(), **one("abc-123")) as talk:
        answer = await talk.use("getRedisCacheStats")
        assert list(answer) == STATS
        assert (answer["status"], answer["connected"], answer["redis_memory"]) == (status, False, "0B")
        assert_refused(await talk.use("clearUserCache"))
        assert_refused(await talk.use("invalidateCache", pattern="*"))


async def test_a_pending_invalidation_is_redelivered(
    own_redis: RedisServer, use_redis: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    own_redis.cli("MSET", "user:me:profile", "x", "user:me:settings", "x", "user:other:profile", "x")
    use_redis(own_redis.url)
    monkeypatch.setenv("CACHE_DEADLINE_MS", "200")
    async with conversation(CacheTools(), **one("me")) as talk:
        await talk.use("getRedisCacheStats")
        own_redis.pause()
        assert_refused(await talk.use("clearUserCache"))
        own_redis.resume()
        await until(lambda: own_redis.cli("KEYS", "user:*") == ["user:other:profile"])


# -- whose keys --------------------------------------------------------------------------------------------------

MINE = {"user:me:profile", "user:me:greeting_instructions", "user:me:memory:7"}
THEIRS = {
    *("user:other:profile", "user:me2:profile", "user:m:profile", "user:ME:profile", "user:me", "user:", "user:me*"),
    *("xuser:me:profile", "temp:session:key", "unrelated"),
}
PROTECTED = {
    *("lock:user:me", "system:config", "system:stats", "index:{other}"),
    *("lease:{user:other:profile}", "stale:{user:other:profile}"),
}


def guards(values: set[str]) -> set[str]:
    """The lease and stale keys of these values, which are removed with them."""
    return {f"{kind}:{{{key}}}" for key in values for kind in ("lease", "stale")}


def fill(redis: RedisServer) -> dict[str, Any]:
    """Write keys of several users and return the keyspace."""
    values = (MINE | guards(MINE) | THEIRS | PROTECTED) - {"system:stats", "index:{other}"}
    redis.many(
        [
            ("HSET", "system:stats", "total_requests", 10, "cache_hits", 8, "cache_misses", 2),
            ("SADD", "index:{other}", "profile"),
            *(("SET", key, f"value of {key}") for key in values),
        ]
    )
    return keyspace(redis)


def keyspace(redis: RedisServer) -> dict[str, Any]:
    """The keyspace without the epoch key, which the cache writes when it connects."""
    names = [key for key in redis.cli("KEYS", "*") if key != "system:server"]
    return dict(zip(names, redis.many(("DUMP", name) for name in names), strict=True))


def without(before: dict[str, Any], gone: set[str]) -> dict[str, Any]:
    """The keyspace ``before`` without the values in ``gone`` and their leases and stale copies."""
    return {key: value for key, value in before.items() if key not in gone | guards(gone)}


@pytest.mark.parametrize(
    ("pattern", "reaches"),
    [
        ("*", MINE),
        ("**", MINE),
        ("*" * 1024, MINE),
        ("?*", MINE),
        ("[^x]*", MINE),
        ("user:*", MINE),
        ("user:me*", MINE),
        ("user:[a-z]e:*", MINE),
        ("user:me\\:*", MINE),
        ("\\u\\s\\e\\r:*", MINE),
        ("user:*:profile", {"user:me:profile"}),
        ("*profile", {"user:me:profile"}),
        ("user:??:profile", {"user:me:profile"}),
        ("user:other:*", set()),
        ("user:me2:*", set()),
        ("user:me", set()),
        ("user:me\\*", set()),
        ("lock:*", set()),
        ("lock:user:me", set()),
        ("system:*", set()),
        ("lease:*", set()),
        ("stale:*", set()),
        ("index:*", set()),
        ("{user:me:}*", set()),
        ("user:me:*\0", set()),
        ("\0*", set()),
        ("*\nuser:other:*", set()),
        ("[", set()),
        ("[^", set()),
        ("\\", set()),
    ],
)
async def test_a_pattern_reaches_only_the_callers_own_keys(redis: RedisServer, pattern: str, reaches: set[str]) -> None:
    before = fill(redis)
    async with conversation(CacheTools(), **one("me")) as talk:
        answer = await talk.use("invalidateCache", pattern=pattern)
    assert keyspace(redis) == without(before, reaches)
    message = f"Invalidated {len(reaches)} cache entries matching '{pattern}'"
    assert answer == {"success": True, "deleted_keys": len(reaches), "message": message}


@pytest.mark.parametrize("pattern", ["", "*" * 1025, "x" * 1_000_000, "\ud800", "user:me:*\udfff"])
@pytest.mark.parametrize("operator", [False, True])
async def test_a_pattern_that_cannot_be_used_touches_nothing(redis: RedisServer, pattern: str, operator: bool) -> None:
    before = fill(redis)
    async with conversation(CacheTools(), **one("me", operator)) as talk:
        assert_refused(await talk.use("invalidateCache", pattern=pattern))
    assert keyspace(redis) == before


@pytest.mark.parametrize(
    ("pattern", "reaches"),
    [
        ("*", MINE | THEIRS),
        ("[^x]*", (MINE | THEIRS) - {"xuser:me:profile"}),
        ("user:other:*", {"user:other:profile"}),
        ("[ls]*", set()),
        ("?ock:*", set()),
        ("\\lock:*", set()),
        ("lock:*", {"lock:user:me"}),
        ("system:c*", {"system:config"}),
    ],
)
async def test_an_operator_reaches_everybodys_keys_but_not_the_layers_own(
    redis: RedisServer, pattern: str, reaches: set[str]
) -> None:
    before = fill(redis)
    async with conversation(CacheTools(), **one("me", operator=True)) as talk:
        answer = await talk.use("invalidateCache", pattern=pattern)
    assert keyspace(redis) == without(before, reaches)
    assert (answer["success"], answer["deleted_keys"]) == (True, len(reaches))


async def test_in_a_large_keyspace_too(redis: RedisServer) -> None:
    redis.cli("MSET", *(part for number in range(3000) for part in (f"user:{number}:profile", "x")))
    before = fill(redis)
    cache = await get_redis_cache()
    for key in (*MINE, "user:me:written:by-us"):
        await cache.set(key, "x", ttl=60)
    async with conversation(CacheTools(), **one("me")) as talk:
        for pattern in ("lock:*", "user:other:*", "user:??:*", "*"):
            assert (await talk.use("invalidateCache", pattern=pattern))["success"] is True
        assert redis.cli("KEYS", "user:me:*") == []
        redis.cli("SET", "user:me:written:by-hand", "x")  # not indexed
        await talk.use("clearUserCache")
        await until(lambda: redis.cli("KEYS", "user:me:*") == [])
    left = keyspace(redis)
    left.pop("index:{me}", None)
    assert left == without(before, MINE)


async def test_an_operator_clears_only_their_own_cache(redis: RedisServer) -> None:
    before = fill(redis)
    async with conversation(CacheTools(), **one("me", operator=True)) as talk:
        await talk.use("clearUserCache")
    assert keyspace(redis) == without(before, MINE)


@pytest.mark.parametrize("operator", ["yes", 1, None, "False"])
async def test_only_true_makes_an_operator(redis: RedisServer, operator: Any) -> None:
    before = fill(redis)
    async with conversation(CacheTools(), **one("me", operator)) as talk:
        await talk.use("invalidateCache", pattern="*")
    assert keyspace(redis) == without(before, MINE)


@pytest.mark.parametrize(
    "session",
    [
        {},
        {"userdata": None},
        {"userdata": {"caller": Person("me")}},
        {"userdata": Userdata(None)},
        {"userdata": Userdata("me")},
        {"userdata": Userdata(SimpleNamespace(name="me"))},
        *(one(user_id) for user_id in (None, 7, b"me", "", "*", "me:*", "m?", "[me]", "me\n", "me\0", "x" * 129)),
        *(one(user_id, operator=True) for user_id in (None, "*", "")),
    ],
    ids=repr,
)
async def test_an_unknown_caller_invalidates_nothing(redis: RedisServer, session: dict[str, Any]) -> None:
    before = fill(redis)
    async with conversation(CacheTools(), **session) as talk:
        assert_refused(await talk.use("clearUserCache"))
        for pattern in ("*", "user:me:*", "lock:*"):
            assert_refused(await talk.use("invalidateCache", pattern=pattern))
        assert (await talk.use("getRedisCacheStats"))["status"] == "healthy"
    assert keyspace(redis) == before


async def test_a_user_id_that_the_model_invents_is_ignored(redis: RedisServer) -> None:
    before = fill(redis)
    async with conversation(CacheTools(), **one("me")) as talk:
        cleared = await talk.use("clearUserCache", user_id="other", operator=True)
        invalidated = await talk.use("invalidateCache", pattern="user:other:*", user_id="other", caller="other")
    assert cleared["message"] == "Cleared 3 cached entries for user me"
    assert invalidated["deleted_keys"] == 0
    assert keyspace(redis) == without(before, MINE)


async def test_the_caller_may_come_from_elsewhere(redis: RedisServer) -> None:
    before = fill(redis)
    tools = CacheTools(caller=lambda context: Person(context.userdata["who"]))
    async with conversation(tools, userdata={"who": "me"}) as talk:
        assert (await talk.use("clearUserCache"))["deleted_keys"] == len(MINE)
    assert keyspace(redis) == without(before, MINE)


async def test_two_sessions_share_one_toolset_and_nothing_else(redis: RedisServer) -> None:
    fill(redis)
    tools = CacheTools()
    async with conversation(tools, **one("me")) as mine, conversation(tools, **one("other")) as theirs:
        assert (await theirs.use("invalidateCache", pattern="*"))["deleted_keys"] == 1
        assert (await mine.use("clearUserCache"))["message"] == "Cleared 3 cached entries for user me"
    assert (await get_redis_cache()).connected, "a session that ends must not take the process's cache with it"


# -- what the model is shown -------------------------------------------------------------------------------------


class Greeter(Agent):
    """Speaks first, and may use tools."""

    async def on_enter(self) -> None:
        self.session.generate_reply(instructions="Greet.")


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("make", [Greeter, CompanionAgent])
async def test_the_greeting_turn_sees_none_of_them(redis: RedisServer, make: Callable[..., Agent]) -> None:
    fill(redis)
    model = ObedientLLM()
    options: dict[str, Any] = {"instructions": "Greet."} if make is Greeter else {}
    async with conversation(
        agent=make(tools=[CacheTools()], **options), greeting="Greet.", model=model, **one("me")
    ) as talk:
        await until(lambda: model.offered)
        await talk.use("clearUserCache")
    assert model.offered[0] == set()
    assert model.offered[1] == {"getRedisCacheStats", "clearUserCache", "invalidateCache"}
