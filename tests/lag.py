"""Measures how late the event loop is, for tests of deadlines: what the machine took is not the product's."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

_TICK: Final = 0.01


class LoopLag:
    """Adds up how late the event loop was while the ``async with`` block ran.

    Attributes:
        seconds: by how much a sleep of ten milliseconds, repeated, took longer; the work of the block counts, too.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    async def __aenter__(self) -> LoopLag:
        self._measuring = asyncio.create_task(self._measure(), name="loop-lag")
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._measuring.cancel()

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_TICK)
            self.seconds += max(0.0, loop.time() - before - _TICK)
