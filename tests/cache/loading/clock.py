"""Measures durations in seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any


async def timed(awaitable: Awaitable[Any]) -> tuple[Any, float]:
    """Await ``work`` and return its result and its duration."""
    began = time.perf_counter()
    return await awaitable, time.perf_counter() - began


async def seconds_until(true: Callable[[], object], timeout: float = 3.0) -> float:
    """Poll every millisecond until the condition is true, and return the duration. Fails on a timeout."""
    began = time.perf_counter()
    while not true():
        if time.perf_counter() - began > timeout:
            raise AssertionError(f"not within {timeout} s")
        await asyncio.sleep(0.001)
    return time.perf_counter() - began
