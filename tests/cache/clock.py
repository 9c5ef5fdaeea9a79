"""How long things take, in seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any


async def timed(awaitable: Awaitable[Any]) -> tuple[Any, float]:
    """What it said, and how long that took."""
    began = time.perf_counter()
    return await awaitable, time.perf_counter() - began


async def seconds_until(true: Callable[[], object], timeout: float = 3.0) -> float:
    """Wait for it, looking every millisecond; how long that took. Fails when it does not come."""
    began = time.perf_counter()
    while not true():
        if time.perf_counter() - began > timeout:
            raise AssertionError(f"not within {timeout} s")
        await asyncio.sleep(0.001)
    return time.perf_counter() - began
