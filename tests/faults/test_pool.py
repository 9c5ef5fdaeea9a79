"""The pool is given up while it is used: what was under way must not open connections that nobody closes."""

from __future__ import annotations

import asyncio

import pytest

from cache import CacheSettings
from cache.exceptions import CacheUnavailable
from cache.transport.pool import PooledClient
from tests.faults.background import BackgroundProxy
from tests.faults.world import connections_to
from tests.real.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("milliseconds", [0, 1, 4, 8, 12])
async def test_nothing_is_opened_after_the_end(own_redis: RedisServer, milliseconds: int) -> None:
    with BackgroundProxy(own_redis.port, delay_to_client=0.003) as proxy:
        settings = CacheSettings(url=f"redis://127.0.0.1:{proxy.port}/0", deadline=5.0, url_is_default=False)
        link = PooledClient(settings, on_up=lambda: None, on_failed=lambda reason: None)
        link.start()
        assert await link.wait_up(3)
        calls = [asyncio.create_task(link.call(lambda client: client.execute_command("PING"))) for _ in range(10)]
        await asyncio.sleep(milliseconds / 1000)
        link.stop()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await link.closed()
        assert all(isinstance(outcome, bool | CacheUnavailable) for outcome in outcomes)
        await until(lambda: connections_to(proxy.port) == 0, 2)
