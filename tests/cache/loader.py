"""Loaders that tests can hold up."""

from __future__ import annotations

import asyncio
from typing import Any


class Loader:
    """Answers `value`, or raises it if it is an exception, once it is let go. Change `value` at any time.

    `calls` began, `ended` came to an end of any kind. `started` is set when the first begins.
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
        value = self.value  # what the source said when it was asked
        self.started.set()
        try:
            await self.gate.wait()
        finally:
            self.ended += 1
        if isinstance(value, Exception):
            raise value
        return value
