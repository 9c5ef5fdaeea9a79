"""What anyone has written lately, invalidated again, whether or not it was acknowledged.

For a cache that may have lost what was delivered to it, and for one to which the writers' relays do not deliver.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Final

from cache import get_redis_cache, keys

from ..store import OutboxRow, Store
from .cached_data import MAX_LIFETIME
from .erasure_relay import ErasureRelay
from .invalidation import invalidate_rows

logger = logging.getLogger("companion")
_CLOCK_SKEW: Final = 300.0  # seconds by which the clocks of Redis, store and worker may differ
MAX_ROWS: Final = 1000  # from more invalidations than that on, clearing the cache costs less
POLLED: Final = "system:polled"  # the age of this key is the time since a cache was last cleared of what was written


class RecentChanges:
    """Invalidates again what the outbox says was written lately.

    Args:
        store: returns the store; called when it is needed.
        erasures: knows the latest erasure.
    """

    def __init__(self, store: Callable[[], Store], erasures: ErasureRelay) -> None:
        self._store = store
        self._erasures = erasures
        self._last_poll: tuple[float, set[OutboxRow]] | None = None
        self._last_erasure = 0

    async def redeliver(self) -> bool:
        """Invalidate again what was written within the lifetime of a cached value.

        For a Redis that has restarted or was restored, and so may have lost invalidations that it had acknowledged.

        Returns:
            Whether nothing stale can be left. False where there is too much to invalidate one by one, and nothing was.

        Raises:
            StoreError: the outbox cannot be read.
        """
        if await self._erasures.latest():
            return False
        rows = await self._store().recent_changes(within=MAX_LIFETIME + _CLOCK_SKEW, limit=MAX_ROWS + 1)
        if len(rows) > MAX_ROWS:
            return False
        await invalidate_rows(await get_redis_cache(), rows)
        logger.info("Redis was restarted or restored: %d invalidations of the last day redelivered", len(rows))
        return True

    async def poll(self) -> None:
        """Invalidate what anyone has written since the last poll of this process or, before its first, of the cache.

        Raises:
            StoreError: the outbox cannot be read.
        """
        cache = await get_redis_cache()
        now = _sleepless_clock()
        left = max(await cache.ttl(POLLED), 0)
        last_at, known = self._last_poll or (now - MAX_LIFETIME + left, set())
        within = now - last_at + _CLOCK_SKEW
        # What is known of the window does not count: a busy store has more rows in it than may be invalidated at once.
        rows = set(await self._store().recent_changes(within=within, limit=MAX_ROWS + 1 + len(known)))
        # In a cache that was not used for longer than other values live, there may still be speech.
        erasure = await (self._erasures.latest(within) if self._last_poll or left else self._erasures.latest())
        if len(rows - known) > MAX_ROWS or erasure > self._last_erasure:
            await cache.invalidate(f"{keys.USERS}*", own=True)
        else:
            await invalidate_rows(cache, rows - known)
        self._last_poll = now, rows
        self._last_erasure = max(erasure, self._last_erasure)
        if not cache.invalidations.undelivered:
            await cache.set(POLLED, True, ttl=MAX_LIFETIME)


def _sleepless_clock() -> float:
    """Runs on while the machine sleeps, unlike the loop's clock, and is never set, unlike that of the day."""
    if sys.platform == "win32":
        return time.monotonic()  # does so there
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
