"""Storing what earlier processes could not: now, and every half minute while there is anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from .records import Write
from .spool import Spool

logger = logging.getLogger("companion")
POLL_INTERVAL: Final = 30.0
"""Seconds between two looks."""
_VAIN: Final = 2  # files of which nothing could be stored, until the rest has to wait too


class SpoolReplay:
    """Takes what is in the spool to the store.

    Args:
        spool: where it is.
        store: stores one write of a user; may be repeated. Raises StoreError.
    """

    def __init__(self, spool: Spool, store: Callable[[str, Write], Awaitable[None]]) -> None:
        self._spool = spool
        self._store = store
        self._told = ""
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the background."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="spool-replay")

    async def close(self) -> None:
        """Stop. What is not stored stays where it is."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
            self._looking = None

    async def replay(self) -> int:
        """Store what can be stored. Returns how many writes that were; what fails is told once, and stays."""
        count, vain, trouble = 0, 0, ""
        for path in self._spool.files():
            try:
                taken, problem = await self._spool.drain(path, self._store)
            except Exception as failure:  # of this file, whatever it is: the others are stored all the same
                trouble = getattr(failure, "strerror", None) or type(failure).__name__
                continue
            count += taken
            if problem is not None:
                trouble = str(problem)
                vain += not taken
                if vain == _VAIN:
                    break
        if count:
            logger.info("stored what an earlier process could not: %d", count)
        if trouble and trouble != self._told:
            logger.warning("what an earlier process could not store still waits: %s", trouble)
        self._told = trouble
        return count

    async def _look(self) -> None:
        while True:
            await self.replay()
            await asyncio.sleep(POLL_INTERVAL)
