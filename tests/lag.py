"""Measures how late the event loop is, for tests of deadlines: what the machine took is not the product's."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final

_TICK: Final = 0.01


class LoopLag:
    """Adds up how late the event loop was while the ``async with`` block ran.

    Attributes:
        seconds: by how much a sleep of ten milliseconds, repeated, took longer; the work of the block counts, too.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._due = math.inf

    @property
    def seconds(self) -> float:
        return self._seconds + max(0.0, asyncio.get_running_loop().time() - self._due)

    async def __aenter__(self) -> LoopLag:
        self._due = asyncio.get_running_loop().time() + _TICK
        self._measuring = asyncio.create_task(self._measure(), name="loop-lag")
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._measuring.cancel()
        self._seconds, self._due = self.seconds, math.inf

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._seconds, self._due = self.seconds, asyncio.get_running_loop().time() + _TICK


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Assert that the block takes less, by how late the loop was aside."""
    began = asyncio.get_running_loop().time()
    async with LoopLag() as lag:
        yield
    took = asyncio.get_running_loop().time() - began
    assert took < seconds + lag.seconds, f"it took {took:.2f} s, {lag.seconds:.2f} of them late"
