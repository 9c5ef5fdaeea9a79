"""Each code example of the documented system, run as it is written there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cache import RedisCache, close_redis_cache, get_redis_cache
from companion import (
    Caller,
    get_intelligent_first_message_instructions,
    get_user_profile_async,
    save_user_profile_async,
    use_caller,
)
from companion.runtime import close_runtime
from tests.real.redis.redis_server import NOWHERE, RedisServer

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
async def _environment(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("CACHE_CONNECT_WAIT_MS", "5000")
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")
    yield
    await close_runtime()
    await close_redis_cache()


async def test_cached_read_and_write_with_invalidation() -> None:
    profile_text = "Name: Ada"
    with use_caller(Caller("123")):
        profile = await get_user_profile_async()
        assert profile == ""
        success = await save_user_profile_async(profile_text)
        assert success is True
        assert await get_user_profile_async() == profile_text


async def test_greeting_automatically_cached(redis_server: RedisServer) -> None:
    user_id, base_instructions = "123", "Greet the user."
    instructions = await get_intelligent_first_message_instructions(user_id, base_instructions)
    assert instructions.startswith(base_instructions)
    assert redis_server.cli("EXISTS", "user:123:greeting_instructions") == 1


async def test_get() -> None:
    redis_cache = await get_redis_cache()
    value = await redis_cache.get("user:123:profile")
    assert value is None
    assert await redis_cache.get("user:123:profile", default="x") == "x"


async def test_set_with_ttl_nx_and_xx() -> None:
    redis_cache = await get_redis_cache()
    profile_data, new_data = {"name": "Ada"}, {"name": "Grace"}
    # Set with 1 hour TTL
    assert await redis_cache.set("user:123:profile", profile_data, ttl=3600)
    # Set only if doesn't exist
    assert await redis_cache.set("lock:user:123", "locked", ttl=10, nx=True)
    assert not await redis_cache.set("lock:user:123", "locked", ttl=10, nx=True)
    # Set only if exists
    assert await redis_cache.set("user:123:profile", new_data, xx=True)
    assert await redis_cache.get("user:123:profile") == new_data


async def test_delete() -> None:
    redis_cache = await get_redis_cache()
    for key in ("user:123:profile", "key1", "key2", "key3"):
        await redis_cache.set(key, 1, ttl=60)
    assert await redis_cache.delete("user:123:profile") == 1
    assert await redis_cache.delete("key1", "key2", "key3") == 3


async def test_exists() -> None:
    redis_cache = await get_redis_cache()
    await redis_cache.set("user:123:profile", "p", ttl=60)
    count = await redis_cache.exists("user:123:profile", "user:123:settings")
    assert count == 1


async def test_expire_and_ttl() -> None:
    redis_cache = await get_redis_cache()
    await redis_cache.set("user:123:temp_data", "t")
    assert await redis_cache.ttl("user:123:temp_data") == -1
    assert await redis_cache.expire("user:123:temp_data", 300)
    assert 298 <= await redis_cache.ttl("user:123:temp_data") <= 300
    assert await redis_cache.ttl("user:123:profile") == -2


async def test_patterns() -> None:
    redis_cache = await get_redis_cache()

    async def fill() -> None:
        for user in ("123", "456"):
            await redis_cache.set(f"user:{user}:profile", "p", ttl=60)
            await redis_cache.set(f"user:{user}:settings", "s", ttl=60)

    await fill()
    assert await redis_cache.invalidate_pattern("user:*") == 4
    await fill()
    assert await redis_cache.invalidate_pattern("user:123:*") == 2
    await fill()
    assert await redis_cache.invalidate_pattern("user:*:profile") == 2
    assert await redis_cache.clear_user_cache("123") == 1


async def test_stats() -> None:
    redis_cache = await get_redis_cache()
    await redis_cache.set("k", 1, ttl=60)
    await redis_cache.get("k")
    stats = await redis_cache.get_stats()
    assert list(stats) == [
        "enabled",
        "connected",
        "total_requests",
        "cache_hits",
        "cache_misses",
        "hit_rate",
        "connection_errors",
        "redis_keys",
        "redis_memory",
        "stale_reads",  # beyond the documented nine, as are the next two
        "undecodable",
        "warmed",
    ]
    # Monitor hit rate
    assert not float(stats["hit_rate"].rstrip("%")) < 70
    # Check cache health
    assert await redis_cache.health_check() is True


async def fetch_from_database() -> dict[str, str]:
    return {"from": "database"}


async def cached_or_fetched(redis_cache: RedisCache, cache_key: str) -> Any:
    cached_value = await redis_cache.get(cache_key)
    if cached_value is None:
        value = await fetch_from_database()
        await redis_cache.set(cache_key, value, ttl=3600)
        return value
    return cached_value


async def test_graceful_degradation(make_cache: Any) -> None:
    away = make_cache(f"redis://127.0.0.1:{NOWHERE}/0")
    for redis_cache in (await get_redis_cache(), away):
        for _ in range(2):
            assert await cached_or_fetched(redis_cache, "user:123:profile") == {"from": "database"}


async def test_invalidate_on_update() -> None:
    redis_cache = await get_redis_cache()
    database: dict[str, str] = {}

    async def save_to_db(user_id: str, new_profile: str) -> None:
        database[user_id] = new_profile

    async def update_profile(user_id: str, new_profile: str) -> None:
        await save_to_db(user_id, new_profile)
        await redis_cache.delete(f"user:{user_id}:profile")

    await redis_cache.set("user:123:profile", "old", ttl=3600)
    await update_profile("123", "new")
    assert await redis_cache.get("user:123:profile") is None


async def test_migration_from_lru_cache() -> None:
    fetched: list[str] = []

    async def fetch_from_db(user_id: str) -> str:
        fetched.append(user_id)
        return f"profile of {user_id}"

    async def get_profile(user_id: str) -> Any:
        redis_cache = await get_redis_cache()
        cache_key = f"user:{user_id}:profile"
        cached = await redis_cache.get(cache_key)
        if cached:
            return cached
        profile = await fetch_from_db(user_id)
        await redis_cache.set(cache_key, profile, ttl=3600)
        return profile

    assert [await get_profile("1"), await get_profile("1")] == ["profile of 1"] * 2
    assert fetched == ["1"]


async def test_debugging_with_redis_cli(redis_server: RedisServer) -> None:
    redis_cache = await get_redis_cache()
    await redis_cache.set("user:123:profile", {"name": "Ada"}, ttl=3600)
    assert redis_server.cli("KEYS", "user:123:*") == ["user:123:profile"]
    assert json.loads(redis_server.cli("GET", "user:123:profile")) == {"name": "Ada"}
    assert redis_server.cli("TTL", "user:123:profile") > 3590
    assert redis_server.cli("DEL", "user:123:profile") == 1
    assert await redis_cache.get("user:123:profile") is None


async def test_enabled_or_not_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_ENABLED", "false")
    redis_cache = RedisCache()
    await redis_cache.initialize()
    assert await cached_or_fetched(redis_cache, "k") == {"from": "database"}
    assert (await redis_cache.get_stats())["enabled"] is False


def test_the_documented_connection_settings() -> None:
    settings = RedisCache("redis://username:password@host:6379/2").settings
    assert settings.max_connections == 50
    assert settings.socket_connect_timeout == 5
    assert settings.socket_timeout == 5
    assert settings.health_check_interval == 30
    assert "password" not in repr(settings)
