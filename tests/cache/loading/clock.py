"""Measures durations in seconds. How late the loop was is not counted: the machine takes that, not the product."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.lag import LoopLag


async def timed(awaitable: Awaitable[Any]) -> tuple[Any, float]:
    """Await ``work`` and return its result and its duration."""
    began = time.perf_counter()
    async with LoopLag() as lag:
        result = await awaitable
    return result, time.perf_counter() - began - lag.seconds


async def seconds_until(true: Callable[[], object], timeout: float = 20.0) -> float:
    """Poll every millisecond until the condition is true, and return the duration. Fails on a timeout."""
    began = time.perf_counter()
    async with LoopLag() as lag:
        while not true():
            if time.perf_counter() - began > timeout:
                raise AssertionError(f"not within {timeout} s")
            await asyncio.sleep(0.001)
    return time.perf_counter() - began - lag.seconds
