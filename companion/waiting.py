"""Waits that end at a time, whatever they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress


async def within(work: Awaitable[object], timeout: float) -> None:
    """Await ``work``, ``timeout`` seconds at most; after that it is cancelled."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await work
