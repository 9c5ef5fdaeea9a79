"""Locks: one holder, nobody else's release, and no pretending."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache import LockLost, LockUnavailable, RedisCache
from tests.real.redis_server import RedisServer


async def test_one_holder(cache: RedisCache, redis_server: RedisServer) -> None:
    async with cache.lock("user", "123", ttl=10):
        assert 8 <= redis_server.cli("TTL", "lock:user:123") <= 10
        with pytest.raises(LockUnavailable, match="held by somebody else"):
            async with cache.lock("user", "123"):
                pass
        async with cache.lock("user", "12"):
            pass
    assert redis_server.cli("EXISTS", "lock:user:123") == 0


async def test_a_waiter_gets_it_when_the_holder_lets_go(cache: RedisCache) -> None:
    order: list[str] = []
    held = asyncio.Event()

    async def holder() -> None:
        async with cache.lock("user", "1"):
            held.set()
            await asyncio.sleep(0.1)
            order.append("first")

    task = asyncio.create_task(holder())
    await held.wait()
    async with cache.lock("user", "1", wait=5):
        order.append("second")
    await task
    assert order == ["first", "second"]


async def test_an_error_in_the_block_comes_through_and_frees_the_lock(
    cache: RedisCache, redis_server: RedisServer
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with cache.lock("user", "1"):
            raise ZeroDivisionError
    assert redis_server.cli("EXISTS", "lock:user:1") == 0


async def test_the_next_holders_lock_is_not_released(cache: RedisCache, redis_server: RedisServer) -> None:
    with pytest.raises(LockLost):
        async with cache.lock("user", "1"):
            redis_server.cli("SET", "lock:user:1", "somebody else's token")
    assert redis_server.cli("GET", "lock:user:1") == "somebody else's token"


async def test_without_redis_it_says_so(make_cache: Any) -> None:
    cache = make_cache("redis://127.0.0.1:1/0")
    with pytest.raises(LockUnavailable, match="Redis is away"):
        async with cache.lock("user", "1"):
            pass
    cache.disable()
    with pytest.raises(LockUnavailable, match="disabled"):
        async with cache.lock("user", "1"):
            pass
