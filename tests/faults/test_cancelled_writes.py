"""A cancelled write may or may not have reached Redis: its key stays pending, so that no old value is served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cache import RedisCache, keys
from tests.faults.harness.background_proxy import BackgroundProxy
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.faults
KEY = keys.profile("1")
WRITES = {
    "set": lambda c: c.set(KEY, "new", ttl=60),
    "delete": lambda c: c.delete(KEY),
    "clear_user_cache": lambda c: c.clear_user_cache("1"),
    "invalidate_pattern": lambda c: c.invalidate_pattern("user:*"),
}


@pytest.mark.parametrize("name", WRITES)
async def test_a_cancelled_write_is_redelivered(
    own_redis: RedisServer, make_cache: Callable[..., RedisCache], name: str
) -> None:
    with BackgroundProxy(own_redis.port) as proxy:
        cache = make_cache(f"redis://127.0.0.1:{proxy.port}/0", connect_wait=5.0)
        await cache.initialize()
        await cache.get_stats()  # connects the pool too
        for turns in (1, 2, 5):
            await cache.set(KEY, "old", ttl=60)
            await proxy.apply(lambda inner: inner.stall())
            writing = asyncio.create_task(WRITES[name](cache))
            for _ in range(turns):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait({writing})
            await proxy.apply(lambda inner: (inner.reset_all(), inner.heal())[1])  # the write never arrives
            assert await cache.get(KEY) != "old"
            await until(lambda: cache.connected)
            assert await cache.get(KEY) != "old"
            await until(lambda: cache.connected and not cache.invalidations.undelivered)
            assert own_redis.cli("GET", KEY) in (None, "new")
