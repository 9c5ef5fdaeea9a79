"""Locks: one holder, release by the holder only, and no lock without Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache import LockLost, LockUnavailable, RedisCache
from tests.inside import locks_of
from tests.real.proxy import Proxy
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.resp2_server import without_resp3
from tests.wait import until

pytestmark = [pytest.mark.integration, pytest.mark.every_server, pytest.mark.every_deployment]


async def test_one_holder(cache: RedisCache, redis_server: RedisServer) -> None:
    async with cache.lock("user", "123", ttl=10):
        assert 8 <= redis_server.cli("TTL", "lock:user:123") <= 10
        with pytest.raises(LockUnavailable, match="has another holder"):
            async with cache.lock("user", "123"):
                pass
        async with cache.lock("user", "12"):
            pass
    assert redis_server.cli("EXISTS", "lock:user:123") == 0


async def test_a_wait_that_is_no_number_does_not_last_for_ever(cache: RedisCache) -> None:
    async with cache.lock("user", "1"):
        with pytest.raises(LockUnavailable):
            async with cache.lock("user", "1", wait=float("nan")):
                raise AssertionError("two holders")


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


@pytest.mark.one_server
async def test_one_that_is_granted_too_late_is_given_back(own_redis: RedisServer, connect: Any) -> None:
    """Redis executes the acquisition after its caller has given up."""
    cache = await connect(own_redis.url, deadline=0.5)
    async with cache.lock("warm", "1"):
        pass
    asked = own_redis.calls("set")
    own_redis.pause()
    with pytest.raises(LockUnavailable, match="Redis is away"):
        async with cache.lock("user", "1", ttl=300):
            pass
    await until(lambda: not cache.connected)
    own_redis.resume()
    await until(lambda: own_redis.calls("set") > asked)
    await until(lambda: own_redis.cli("EXISTS", "lock:user:1") == 0)
    await until(lambda: not locks_of(cache).releasing)


@pytest.mark.one_server
@pytest.mark.parametrize("turns", range(0, 40, 2))
async def test_one_whose_asker_is_cancelled_is_given_back(
    cache: RedisCache, redis_server: RedisServer, turns: int
) -> None:
    async def holder() -> None:
        async with cache.lock("user", "1", ttl=300):
            pass

    async with cache.lock("warm", "1"):
        pass
    task = asyncio.create_task(holder())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    async with cache.lock("user", "1", wait=5.0):
        pass
    await until(lambda: not locks_of(cache).releasing)
    assert redis_server.cli("EXISTS", "lock:user:1") == 0


async def test_what_is_late_does_not_give_back_the_next_holders(own_redis: RedisServer, connect: Any) -> None:
    cache = await connect(own_redis.url, deadline=0.5)
    async with cache.lock("warm", "1"):
        pass
    own_redis.cli("SET", "lock:user:1", "somebody else's token")
    own_redis.pause()
    with pytest.raises(LockUnavailable, match="Redis is away"):
        async with cache.lock("user", "1", ttl=300):
            pass
    own_redis.resume()
    await until(lambda: not locks_of(cache).releasing)
    assert own_redis.cli("GET", "lock:user:1") == "somebody else's token"


@pytest.mark.one_server
async def test_one_that_could_not_be_released_is_released_when_redis_is_back(
    own_redis: RedisServer, connect: Any
) -> None:
    cache = await connect(own_redis.url, deadline=0.5)
    async with cache.lock("user", "1", ttl=300):
        own_redis.pause()
    await until(lambda: not cache.connected)
    own_redis.resume()
    await until(lambda: own_redis.cli("EXISTS", "lock:user:1") == 0)


async def test_one_that_redis_py_asked_for_twice_is_ours(own_redis: RedisServer, connect: Any) -> None:
    """The connection is lost with the reply; on a retry, the lock is already held."""
    async with without_resp3(own_redis.port) as port, Proxy(port) as proxy:
        cache = await connect(f"redis://127.0.0.1:{proxy.port}/0", tracked=False)
        async with cache.lock("warm", "1"):
            pass
        proxy.delay_to_client = 0.5
        entered = asyncio.Event()

        async def holder() -> None:
            async with cache.lock("user", "1", ttl=300):
                entered.set()

        task = asyncio.create_task(holder())
        await until(lambda: own_redis.cli("EXISTS", "lock:user:1") == 1)
        proxy.delay_to_client = 0.0
        proxy.reset_all()
        await task
        assert entered.is_set()
        await until(lambda: own_redis.cli("EXISTS", "lock:user:1") == 0)
        await cache.close()


async def test_a_lock_that_was_never_requested_is_not_released(make_cache: Any) -> None:
    cache = make_cache("redis://127.0.0.1:1/0")
    with pytest.raises(LockUnavailable):
        async with cache.lock("user", "1"):
            pass
    assert not locks_of(cache).releasing


async def test_a_denied_release_is_not_retried(own_redis: RedisServer, connect: Any) -> None:
    own_redis.cli("ACL", "SETUSER", "companion", "reset", "on", ">pw", "~*", "+@all", "-del", "-unlink")
    cache = await connect(own_redis.url.replace("redis://", "redis://companion:pw@"))
    async with cache.lock("user", "1", ttl=300):
        pass
    assert not locks_of(cache).releasing
    assert own_redis.cli("EXISTS", "lock:user:1") == 1


async def test_giving_back_ends_at_close(own_redis: RedisServer, connect: Any) -> None:
    cache = await connect(own_redis.url, deadline=0.5)
    async with cache.lock("user", "1", ttl=300):
        own_redis.pause()
    assert locks_of(cache).releasing
    await asyncio.wait_for(cache.close(), 5)
    assert not locks_of(cache).releasing


async def test_what_is_cancelled_while_the_cache_closes_leaves_no_task(own_redis: RedisServer, make_cache: Any) -> None:
    """The lock expires: a task that went on trying would find no connection, for ever."""
    cache = make_cache(own_redis.url, connect_wait=5.0)
    await cache.initialize()
    held = asyncio.Event()

    async def hold() -> None:
        async with cache.lock("user", "1", ttl=5):
            held.set()
            await asyncio.Event().wait()

    holder = asyncio.create_task(hold())
    await held.wait()
    closing = asyncio.create_task(cache.close())
    await until(lambda: not cache.connected)
    holder.cancel()
    await asyncio.wait({holder, closing})
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "cache-unlock"]
