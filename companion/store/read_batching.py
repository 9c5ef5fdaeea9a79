"""One read of the store for everything that is missing at the start of a conversation.

Profile, greeting, summary and state miss together. Each is loaded under a lease of its own, and each wants a part of
the same context, so those who ask within a moment share one read. The moment ends before the read begins: whoever
asks later gets a read of their own, or a lease granted after a change could be filled with what was read before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from cache import retrieve_exception

from .base import Context

WINDOW: Final = 0.002
"""Seconds in which readers gather."""


class ContextBatcher:
    """Shares reads of a user's context.

    Args:
        read: reads the store; raises StoreError.
    """

    def __init__(self, read: Callable[[str], Awaitable[Context]]) -> None:
        self._read = read
        self._gathering: dict[str, asyncio.Task[Context]] = {}

    async def get(self, user_id: str) -> Context:
        """The user's context, read after this call began. Raises what ``read`` raises."""
        task = self._gathering.get(user_id)
        if task is None:
            task = self._gathering[user_id] = asyncio.create_task(self._gather(user_id), name="context-read")
            task.add_done_callback(retrieve_exception)
        return await asyncio.shield(task)

    async def _gather(self, user_id: str) -> Context:
        try:
            await asyncio.sleep(WINDOW)
        finally:
            del self._gathering[user_id]
        return await self._read(user_id)
