"""The consistency watch: compares a sample of the writes between cache and store, some seconds after each.

A value that the cache still serves and the store no longer holds is stale: it is counted (``stale_reads`` in the
statistics), logged with its key and age, and removed. There should be none; where there is one, an operator learns of
it before a user does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

from cache import BackgroundTasks, get_redis_cache, keys

from ..store import DataKind, Store, StoreError
from .cached_data import CACHED_DATA, CachedData

FIRST_CHECK: Final = 5.0
"""Seconds from a write to the first comparison: time enough for every way of invalidating."""
SECOND_CHECK: Final = 1.0
"""Seconds from the first comparison to the second: a difference that another write is causing has changed by then."""
_MAX_CHECKS: Final = 100  # pending at the same time
_MISSING: Final = object()


class ConsistencyWatch:
    """Compares cache and store after a sample of the writes.

    ``len()`` of a watch is the number of comparisons under way.

    Args:
        store: returns the store; called when a comparison needs it.
        share: the share of the writes to compare after, from 0 (none) to 1 (all), chosen at random.
    """

    def __init__(self, store: Callable[[], Store], share: float) -> None:
        self._store = store
        self._share = share
        self._checks = BackgroundTasks()
        self._closed = False

    def __len__(self) -> int:
        return len(self._checks)

    def schedule(self, user_id: str, kind: DataKind) -> None:
        """Perhaps compare later, after a write whose invalidation has been sent. Returns at once.

        Args:
            user_id: whose data was written.
            kind: the kind of data.
        """
        if not self._closed and random.random() < self._share and len(self._checks) < _MAX_CHECKS:
            self._checks.spawn(self._check(user_id, CACHED_DATA[kind]), name="consistency-watch", context=Context())

    async def close(self) -> None:
        """Cancel the pending comparisons, and schedule no more."""
        self._closed = True
        await self._checks.cancel(timeout=1.0)

    async def _check(self, user_id: str, data: CachedData[Any]) -> None:
        now = asyncio.get_running_loop().time
        written_at = now()
        await asyncio.sleep(FIRST_CHECK)
        try:
            first = await self._difference(user_id, data)
            if first is None:
                return
            await asyncio.sleep(SECOND_CHECK)
            second = await self._difference(user_id, data)
        except (StoreError, keys.InvalidKeyPart):
            return  # nothing to compare with
        if second == first:  # else another write is under way, and it has a comparison of its own
            await (await get_redis_cache()).report_stale(data.key(user_id), now() - written_at)

    async def _difference(self, user_id: str, data: CachedData[Any]) -> tuple[Any, Any] | None:
        """What the cache serves and what the store holds, where they differ; None where they agree."""
        served = await (await get_redis_cache()).get(data.key(user_id), _MISSING)
        if served is _MISSING:
            return None
        if data.comparable is not None:
            served = data.comparable(served)
        true = await data.truth(self._store(), user_id)
        return None if served == true else (served, true)
