"""Waiting for conditions instead of fixed times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from cache import RedisCache


async def until(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    """Poll ``condition`` (plain or async) until it is true, and return its value."""
    give_up = time.monotonic() + timeout
    while True:
        result = condition()
        if isinstance(result, Awaitable):
            result = await result
        if result:
            return result
        if time.monotonic() > give_up:
            raise AssertionError(f"not true within {timeout} s: {getattr(condition, '__name__', condition)}")
        await asyncio.sleep(0.005)


async def initialised(cache: RedisCache) -> None:
    """Initialise and wait for Redis: on a loaded machine the first handshake may time out and be retried."""
    await cache.initialize()
    await until(lambda: cache.connected)
