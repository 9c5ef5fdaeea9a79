"""Writes on their way to the store: tried at once, and again until it takes them.

Nobody's answer waits long for them, and what a person said is not lost with the store: what it has not taken when a
conversation ends goes into a file (:mod:`companion.spool`), and the next process that starts stores it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from .delivery import Delivery
from .spool import Spool
from .store import Store, StoreError
from .write_queue import WriteQueue
from .writes import Write, apply

logger = logging.getLogger("companion")
LOOK_EVERY: Final = 30.0
"""Seconds between two looks for what an earlier process could not store."""


class Backlog:
    """The writes of all users of one runtime; those of one user go one at a time.

    Args:
        store: gives the store when it is needed.
        delivery: tells the cache of what was written.
        spool: where to put what the store does not take.
    """

    def __init__(self, store: Callable[[], Store], delivery: Delivery, spool: Spool) -> None:
        self._store = store
        self._delivery = delivery
        self._spool = spool
        self._queues: dict[str, WriteQueue] = {}
        self._looking: asyncio.Task[None] | None = None

    def add(self, user_id: str, *writes: Write) -> None:
        """Write these in the background. Returns at once."""
        for write in writes:
            self._queue(user_id).add(write)

    async def write(self, user_id: str, write: Write) -> bool:
        """Write it; see :meth:`WriteQueue.write`. Whether it is stored: if not, it is kept and tried again."""
        return await self._queue(user_id).write(write)

    def profile(self, user_id: str) -> str | None:
        """The profile text of this user that waits to be stored; None when none does."""
        queue = self._queues.get(user_id)
        return None if queue is None else queue.profile

    async def drain(self, user_id: str, timeout: float) -> int:
        """Wait at most ``timeout`` seconds for all of this user's; put the rest into a file.

        Returns how many are not stored.
        """
        queue = self._queues.get(user_id)
        if queue is not None:
            await queue.drained(timeout)
        return await self._give_up(user_id)

    def start(self) -> None:
        """Store in the background what earlier processes could not, now and every half minute."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="backlog-look")

    async def recover(self) -> int:
        """Store what earlier processes could not. Returns how many writes that were.

        Raises:
            StoreError: the store cannot; what it did not take stays for the next time.
            OSError: a file cannot be read or written.
        """
        return sum([await self._spool.hand_over(path, self._write_late) for path in self._spool.waiting()])

    async def close(self) -> None:
        """Wait for nothing: what is not stored goes into files."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
            self._looking = None
        for user_id in list(self._queues):
            await self._give_up(user_id)

    def _queue(self, user_id: str) -> WriteQueue:
        if user_id not in self._queues:
            self._queues[user_id] = WriteQueue(partial(self._write, user_id))
        return self._queues[user_id]

    async def _write(self, user_id: str, write: Write, late: bool) -> None:
        await self._delivery.write(apply(write, self._store(), user_id, late=late), user_id)

    async def _write_late(self, user_id: str, write: Write) -> None:
        await self._write(user_id, write, True)

    async def _give_up(self, user_id: str) -> int:
        queue = self._queues.pop(user_id, None)
        rest = [] if queue is None else await queue.stop()
        if rest:
            try:
                await asyncio.to_thread(self._spool.keep, user_id, rest)
            except OSError as problem:
                reason = problem.strerror or type(problem).__name__
                logger.error("not stored, and lost: %d. COMPANION_HOME cannot be written (%s)", len(rest), reason)
            else:
                logger.error("not stored: %d. They wait in COMPANION_HOME for the next start", len(rest))
        return len(rest)

    async def _look(self) -> None:
        while True:
            try:
                if count := await self.recover():
                    logger.info("stored what an earlier process could not: %d", count)
            except (StoreError, OSError) as problem:
                reason = problem if isinstance(problem, StoreError) else problem.strerror
                logger.warning("what an earlier process could not store still waits: %s", reason)
            await asyncio.sleep(LOOK_EVERY)
