"""The profile: read through the cache, written to the store first."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from cache import get_redis_cache, keys
from companion import Caller, get_user_profile_async, save_user_profile_async, use_caller
from companion.runtime import Runtime
from companion.store import StoreError
from tests.real.redis.redis_server import RedisServer

pytestmark = pytest.mark.integration


async def test_read_through(runtime: Runtime, redis_server: RedisServer) -> None:
    await runtime.store.save_profile("1", "Name: Ada")
    with use_caller(Caller("1")):
        assert await get_user_profile_async() == "Name: Ada"
        assert redis_server.cli("GET", "user:1:profile") == "Name: Ada"
        assert 3420 <= redis_server.cli("TTL", "user:1:profile") <= 3600  # shortened at random by up to 5 %
        await runtime.store.save_profile("1", "changed behind the cache")
        assert await get_user_profile_async() == "Name: Ada"


async def test_a_save_is_seen_by_the_next_read_here_and_elsewhere(runtime: Runtime, redis_server: RedisServer) -> None:
    with use_caller(Caller("1")):
        assert await get_user_profile_async() == ""
        assert await save_user_profile_async("Name: Ada") is True
        assert redis_server.cli("EXISTS", "user:1:profile") == 0
        assert await get_user_profile_async() == "Name: Ada"
        assert await runtime.store.get_profile("1") == "Name: Ada"


async def test_the_store_is_written_before_the_cache_is_invalidated(
    runtime: Runtime, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.cli("SET", "user:1:profile", "old")
    save = runtime.store.save_profile

    async def look(*args: Any, **kwargs: Any) -> None:
        assert redis_server.cli("GET", "user:1:profile") == "old"
        await save(*args, **kwargs)

    monkeypatch.setattr(runtime.store, "save_profile", look)
    with use_caller(Caller("1")):
        await save_user_profile_async("new")
        assert await get_user_profile_async() == "new"


async def test_a_new_profile_also_renews_the_greeting(runtime: Runtime) -> None:
    cache = await get_redis_cache()
    await cache.set(keys.greeting_instructions("1"), {"opening": "fresh_start"})
    with use_caller(Caller("1")):
        await save_user_profile_async("Name: Ada")
    assert await cache.exists(keys.greeting_instructions("1")) == 0


async def test_an_unknown_caller_has_no_profile(runtime: Runtime, redis_server: RedisServer) -> None:
    assert await get_user_profile_async() == ""
    assert await save_user_profile_async("text") is False
    assert redis_server.cli("KEYS", "user:*") == []


async def test_a_failing_store_is_an_empty_profile_and_nothing_is_cached(
    runtime: Runtime, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise StoreError("context", "timeout")

    for operation in ("context", "profile_for_write", "swap_profile"):
        monkeypatch.setattr(runtime.store, operation, fail)
    with use_caller(Caller("1")):
        assert await get_user_profile_async() == ""
        assert await save_user_profile_async("my secret") is False
    assert redis_server.cli("KEYS", "user:*") == []
    assert "my secret" not in caplog.text


@pytest.mark.timed
@pytest.mark.parametrize("how", ["fails", "takes too long"])
async def test_what_could_not_be_read_is_not_replaced(
    runtime: Runtime, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    await runtime.store.save_profile("1", "Name: Ada\nLives in: Bern\nAllergic to: nuts")

    async def away(*_: object) -> None:
        if how == "takes too long":
            await asyncio.Event().wait()
        raise StoreError("context", "timeout")

    with use_caller(Caller("1")):
        with monkeypatch.context() as patch:
            patch.setattr(runtime.store, "context", away)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    assert await get_user_profile_async() == ""
        assert await save_user_profile_async("Lives in: Oslo")
        assert await get_user_profile_async() == "Name: Ada\nLives in: Bern\nAllergic to: nuts\nLives in: Oslo"
        assert await save_user_profile_async("Name: Ada")  # read meanwhile, so it replaces the profile
        assert await get_user_profile_async() == "Name: Ada"


async def test_users_at_once_stay_apart(runtime: Runtime) -> None:
    async def live(name: str) -> str:
        with use_caller(Caller(name)):
            await save_user_profile_async(f"I am {name}")
            await asyncio.sleep(0)
            return await get_user_profile_async()

    assert await asyncio.gather(*(live(f"u{n}") for n in range(50))) == [f"I am u{n}" for n in range(50)]


async def test_a_profile_is_text(runtime: Runtime) -> None:
    with use_caller(Caller("1")):
        with pytest.raises(TypeError):
            await save_user_profile_async({"name": "Ada"})  # type: ignore[arg-type]  # the case under test
        for text in ('{"name": "Ada"}', "123", "true", "redis.call('FLUSHALL')", "*1\r\n$8\r\nFLUSHALL\r\n"):
            await save_user_profile_async(text)
            assert await get_user_profile_async() == text
            assert await get_user_profile_async() == text


async def test_what_others_put_under_the_key_is_read_anew(runtime: Runtime, redis_server: RedisServer) -> None:
    await runtime.store.save_profile("1", "Name: Ada")
    redis_server.cli("SET", "user:1:profile", '{"not": "a profile"}')
    with use_caller(Caller("1")):
        assert await get_user_profile_async() == "Name: Ada"
    assert redis_server.cli("GET", "user:1:profile") != '{"not": "a profile"}'
