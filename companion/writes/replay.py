"""Replay of the spool: stores what earlier processes could not, now and every half minute."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Final

from cache import BackgroundTasks

from .erasure import Eraser
from .records import Write
from .spool import Spool

logger = logging.getLogger("companion")
POLL_INTERVAL: Final = 30.0
"""Seconds between two replays."""
_MAX_VAIN_FILES: Final = 2  # of which nothing could be stored, after which the rest is kept untried


class SpoolReplay:
    """Stores the writes in the spool.

    Args:
        spool: the spool.
        store: stores one write of a user, which may be repeated. Raises StoreError.
        eraser: completes the erasures that were cut short.
    """

    def __init__(self, spool: Spool, store: Callable[[str, Write], Awaitable[None]], eraser: Eraser) -> None:
        self._spool = spool
        self._store = store
        self._eraser = eraser
        self._last_problem = ""
        self._polling = BackgroundTasks()

    def start(self) -> None:
        """Replay in the background, now and every ``POLL_INTERVAL`` seconds."""
        if not len(self._polling):
            self._polling.spawn(self._poll(), name="spool-replay", context=Context())  # it outlasts its caller

    async def close(self) -> None:
        """Stop. Writes not stored by then stay in the spool."""
        await self._polling.cancel(timeout=1.0)

    async def replay(self) -> int:
        """Store what the store takes now. A failure is logged once, until there is another one.

        Returns:
            The number of writes that were stored.
        """
        count, vain_files, problem = 0, 0, ""
        with contextlib.suppress(Exception):  # whatever a store may raise, the files are replayed
            await self._eraser.resume()  # first, so that nothing of an erased person is stored for a moment
        with contextlib.suppress(Exception):
            await asyncio.to_thread(self._spool.recover)
            await self._eraser.discard_unreadable()
        for path in self._spool.files():
            try:
                stored, failure = await self._spool.drain(path, self._store)
            except Exception as defect:  # whatever is wrong with this file, the others are replayed
                problem = getattr(defect, "strerror", None) or type(defect).__name__
                continue
            count += stored
            if failure is not None:
                problem = str(failure)
                vain_files += not stored
                if vain_files == _MAX_VAIN_FILES:
                    break
        if count:
            logger.info("stored what an earlier process could not: %d", count)
        if problem and problem != self._last_problem:
            logger.warning("what an earlier process could not store still waits: %s", problem)
        self._last_problem = problem
        return count

    async def _poll(self) -> None:
        while True:
            await self.replay()
            await asyncio.sleep(POLL_INTERVAL)
