"""Deletes turns that are older than the project keeps them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from ..store import Store, StoreError

logger = logging.getLogger("companion")
INTERVAL: Final = 24 * 3600.0
"""Seconds between two searches for old turns."""
RETRY_INTERVAL: Final = 3600.0
"""Seconds until the next search after one that failed."""
BATCH: Final = 1000
"""Turns deleted in one transaction, for which the writes of their users wait."""
PAUSE: Final = 0.1
"""Seconds between two batches, for those writes."""


async def expire_turns(store: Callable[[], Store], days: int) -> None:
    """Delete old turns now and once a day, until cancelled. In many workers at once, they share the work.

    Args:
        store: returns the store; called in a thread, because its first use may import for a second.
        days: the age from which on turns are deleted.
    """
    while True:
        try:
            if count := await _expire(await asyncio.to_thread(store), days):
                logger.info("%d turns older than %d days deleted", count, days)
            pause = INTERVAL
        except Exception as problem:  # whatever a store may raise, it is tried again
            reason = problem if isinstance(problem, StoreError) else type(problem).__name__
            logger.warning("old turns could not be deleted: %s", reason)
            pause = RETRY_INTERVAL
        await asyncio.sleep(pause)


async def _expire(store: Store, days: int) -> int:
    count = 0
    while (batch := await store.expire_turns(days, BATCH)) == BATCH:
        count += batch
        await asyncio.sleep(PAUSE)
    return count + batch
