"""The format of values and keys in a real Redis."""

from __future__ import annotations

import json

import pytest

from cache import RedisCache, keys
from cache.coherence.glob import matches
from tests.cache.serialization.test_codec import same
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration


async def test_through_redis(cache: RedisCache, redis_server: RedisServer) -> None:
    value = {"text": "Zoë 😀", "numbers": [1, 2.5, -0.0, 10**40], "none": None, "flag": True}
    assert await cache.set("k", value)
    assert same(await cache.get("k"), value)
    assert json.loads(redis_server.cli("GET", "k")) == value


async def test_counters_count(cache: RedisCache, redis_server: RedisServer) -> None:
    await cache.set("n", 41)
    redis_server.cli("INCR", "n")
    assert await cache.get("n") == 42


async def test_a_stored_none_and_a_miss_differ(cache: RedisCache) -> None:
    await cache.set("none", None)
    assert await cache.get("none", "nothing there") is None
    assert await cache.get("absent", "nothing there") == "nothing there"


async def test_what_cannot_be_decoded_is_a_miss_and_is_removed(
    cache: RedisCache, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis_server.cli("SET", "user:secret-id:profile", '{"name": "Ad')
    assert await cache.get("user:secret-id:profile", "default") == "default"
    await until(lambda: redis_server.cli("EXISTS", "user:secret-id:profile") == 0)  # not awaited
    assert (await cache.get_stats())["cache_misses"] == 1
    assert "user:...:profile" in caplog.text
    assert "secret-id" not in caplog.text


def test_the_matcher_agrees_with_redis(redis_server: RedisServer) -> None:
    names = ["a", "ab", "abc", "user:1:profile", "user:12:profile", "a-c", "x]y", "a\\b", "[ab]", "^a"]
    names += ["z", "\x7f", "é", "ÿ", "€", "aé", "\x01"]
    redis_server.cli("MSET", *[part for name in names for part in (name, "v")])
    patterns = ["*", "a*", "?", "a?c", "[ab]", "[^a]*", "user:1:*", "user:*:profile", r"\[ab\]", "[a-c]*", "[c-a]b"]
    patterns += ["*c", "a*b*c", "x]y", "[ab", r"a\\b", "*[", "**", "[]x", r"[\]]*", "[a-", "\\", "^a", "[^", "*:[0-9]*"]
    patterns += [
        "[a-é]",
        "[é-a]*",
        "[^a-é]*",
        "[A-ÿ]?",
        "[€-a]*",
        "[é-ÿ]*",
        "[^é]",
        "a[^\x01-€]*",
        "[\x01-z]",
        "é",
        "[é",
    ]
    for pattern in patterns:
        truth = set(redis_server.cli("KEYS", pattern)) - {keys.system_server()}
        assert {name for name in names if matches(pattern, name)} == truth, pattern


async def test_one_user_is_not_another(cache: RedisCache, redis_server: RedisServer) -> None:
    for user in ("1", "12", "1.2", "a1"):
        await cache.set(keys.profile(user), "text")
        await cache.set(keys.greeting_instructions(user), "text")
    assert await cache.clear_user_cache("1") == 2
    assert sorted(redis_server.cli("KEYS", "user:*")) == sorted(
        f"user:{user}:{what}" for user in ("12", "1.2", "a1") for what in ("profile", "greeting_instructions")
    )
