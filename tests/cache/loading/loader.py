"""Loaders that tests can block."""

from __future__ import annotations

import asyncio
from typing import Any


class Loader:
    """Returns `value`, or raises it if it is an exception, once released. `value` may be changed at any time.

    `calls` counts loads begun, `ended` loads finished in any way. `started` is set when the first begins.
    """

    def __init__(self, value: Any = "loaded", *, held: bool = False) -> None:
        self.value = value
        self.calls = self.ended = 0
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        if not held:
            self.gate.set()

    async def __call__(self) -> Any:
        self.calls += 1
        value = self.value  # the value at the begin of the load
        self.started.set()
        try:
            await self.gate.wait()
        finally:
            self.ended += 1
        if isinstance(value, Exception):
            raise value
        return value
