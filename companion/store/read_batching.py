"""Batches the reads of the store that a conversation starts with: one for everything that misses at the same moment.

Profile, greeting, summary and state miss together. Each is loaded under a lease of its own, and each is a part of the
same context, so loads that begin within ``WINDOW`` share one read. The window closes before the read begins: a load
that begins later gets a read of its own. Otherwise a lease that was granted after a change could be filled with what
was read before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from cache import BackgroundTasks

from .base import StoreError
from .records import Context

WINDOW: Final = 0.002
"""Seconds in which loads join a batch."""


class ContextBatcher:
    """Shares reads of a user's context.

    Args:
        read: reads a user's context from the store; raises StoreError.

    Attributes:
        reads: how many reads it has made.
    """

    def __init__(self, read: Callable[[str], Awaitable[Context]]) -> None:
        self.reads = 0
        self._read = read
        self._open: dict[str, asyncio.Task[Context]] = {}
        self._background = BackgroundTasks()

    async def get(self, user_id: str) -> Context:
        """Read a user's context, in a read that begins after this call.

        Args:
            user_id: the user.

        Returns:
            The context; callers share the object.

        Raises:
            StoreError: the read failed.
        """
        batch = self._open.get(user_id)
        if batch is None:
            batch = self._open[user_id] = self._background.spawn(self._read_batch(user_id), name="context-read")
        return await asyncio.shield(batch)

    async def close(self) -> None:
        """End the reads under way, with a StoreError: a store that hangs would keep them after the loop's last job."""
        await self._background.cancel(timeout=1.0)

    async def _read_batch(self, user_id: str) -> Context:
        try:
            try:
                await asyncio.sleep(WINDOW)
            finally:
                del self._open[user_id]
            self.reads += 1
            return await self._read(user_id)
        except asyncio.CancelledError:
            raise StoreError("context", "closed") from None
