"""Stopping the pool during calls: no connection is opened afterwards."""

from __future__ import annotations

import asyncio

import pytest

from cache import CacheSettings
from cache.exceptions import CacheUnavailable
from cache.transport.fallback.pool import PooledClient
from tests.cache.conftest import Listener
from tests.faults.harness.background_proxy import BackgroundProxy
from tests.faults.harness.environment import connections_to
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("milliseconds", [0, 1, 4, 8, 12])
async def test_no_connection_is_opened_after_stop(own_redis: RedisServer, milliseconds: int) -> None:
    with BackgroundProxy(own_redis.port, delay_to_client=0.003) as proxy:
        settings = CacheSettings(url=f"redis://127.0.0.1:{proxy.port}/0", deadline=5.0, url_is_default=False)
        client = PooledClient(settings, Listener())
        await until(lambda: client.up)
        pings = [client.call("PING") for _ in range(10)]
        await asyncio.sleep(milliseconds / 1000)
        await client.close()
        results = await asyncio.gather(*pings, return_exceptions=True)
        assert all(isinstance(result, bytes | CacheUnavailable) for result in results)
        await until(lambda: connections_to(proxy.port) == 0)
