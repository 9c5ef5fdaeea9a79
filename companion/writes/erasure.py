"""Erases a person everywhere: in the store, in every cache, in the spool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

from cache import BackgroundTasks, get_redis_cache

from ..caching import deliver_erasure
from ..store import PendingErasure, Store


class Eraser:
    """Erases persons.

    Args:
        store: returns the store; called when it is needed.
    """

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._background = BackgroundTasks()

    async def erase(self, user_id: str) -> bool:
        """Erase a person; the caller's cancellation does not stop it.

        Returns:
            Whether all of it is done.

        Raises:
            StoreError: the store has not confirmed it.
        """
        return await asyncio.shield(self._background.spawn(self._erase(user_id, uuid4().hex), name="erase"))

    async def _erase(self, user_id: str, request: str) -> bool:
        number = await self._store().erase_user(user_id, request)
        return await deliver_erasure(await get_redis_cache(), self._store(), PendingErasure(user_id, number))
