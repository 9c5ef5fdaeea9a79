"""An event loop on a thread of its own, so that a stall of the loop under test does not stall the servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

LIMIT: Final = 30.0
"""Seconds that the thread may take to start and to end."""


class LoopThread:
    """A running loop. ``close`` cancels what still runs in it, and waits for that, before it closes the loop."""

    def __init__(self, name: str) -> None:
        self._ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name=name, daemon=True)
        self._thread.start()
        self._loop, self._ended = self._ready.result(LIMIT)

    def submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run a coroutine in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), f"the thread {self._thread.name} does not end"

    async def _serve(self) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set_result((loop, ended))
        await ended.wait()
