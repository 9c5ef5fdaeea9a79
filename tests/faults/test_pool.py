"""The pool is given up while it is used: what was under way must not open connections that nobody closes."""

from __future__ import annotations

import asyncio

from cache import CacheSettings
from cache.link import Link, LinkDown
from tests.faults.world import connections_to
from tests.real.redis_server import RedisServer
from tests.wait import until


async def test_nothing_is_opened_after_the_end(own_redis: RedisServer) -> None:
    settings = CacheSettings(url=own_redis.url, deadline=5.0, url_is_default=False)
    link = Link(settings, on_up=lambda: None, on_failed=lambda reason: None)
    link.start()
    assert await link.wait_up(3)
    own_redis.pause()
    calls = [asyncio.create_task(link.call(lambda client: client.execute_command("PING"))) for _ in range(10)]
    await until(lambda: connections_to(own_redis.port) == 10)
    link.stop()
    own_redis.resume()
    await link.closed()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, bool | LinkDown) for outcome in outcomes)
    await until(lambda: connections_to(own_redis.port) == 0, 2)
