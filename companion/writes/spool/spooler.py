"""Which writes of this process are in the spool: those that wait for the store, and those that are left at an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cache import BackgroundTasks

from ..queue import WriteQueue
from ..records import Write
from .keeper import Pending, SpoolKeeper
from .spool import Spool

logger = logging.getLogger("companion")


class InFlight(NamedTuple):
    """A write that the store has been given, and has not confirmed."""

    write: Write
    task: asyncio.Task[None]


class Spooler:
    """Keeps a file in the spool for each queue, and leaves it to other processes when the queue ends.

    Args:
        spool: the spool.
        background: runs the last updates of a file.
    """

    def __init__(self, spool: Spool, background: BackgroundTasks) -> None:
        self._spool = spool
        self._background = background
        self._keepers: dict[str, SpoolKeeper] = {}

    def keep(self, user_id: str) -> Callable[[Pending], None]:
        """Begin to keep what a user's new queue holds.

        Returns:
            What is to be called with the queue when a write was enqueued.
        """
        self._keepers[user_id] = SpoolKeeper(user_id, self._spool.new_file())
        return self._keepers[user_id].watch

    def drop(self, user_id: str) -> None:
        """End with a queue that is empty: the file is deleted in the background."""
        self._background.spawn(self._keepers.pop(user_id).finish(()), name="spool-finish")

    async def leave(self, user_id: str, queue: WriteQueue, in_flight: InFlight | None) -> int:
        """End a queue, and spool what it has not stored, for other processes.

        Args:
            user_id: whose queue.
            queue: the queue.
            in_flight: the write that the store may still confirm.

        Returns:
            The number of writes that the store has not confirmed.
        """
        keeper = self._keepers.pop(user_id)  # before anything is waited for: the user may have another queue by then
        pending = await queue.stop()
        try:
            path = await keeper.finish(pending)
        except OSError as problem:
            _log_lost(len(pending), problem)
            return len(pending)
        if path is not None:
            logger.error("not stored: %d. They wait in COMPANION_HOME for the next start", len(pending))
            if in_flight is not None and any(write is in_flight.write for write in pending):
                # The store may still take it: then the next start must not.
                in_flight.task.add_done_callback(partial(self._remove_if_stored, path, user_id, in_flight.write))
        return len(pending)

    def add(self, user_id: str, writes: Sequence[Write]) -> None:
        """Spool what comes after the end. Blocks, because what waited for a thread would end with the loop."""
        try:
            self._spool.add(user_id, writes)
        except OSError as problem:
            _log_lost(len(writes), problem)

    def _remove_if_stored(self, path: Path, user_id: str, write: Write, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._background.spawn(asyncio.to_thread(self._spool.remove, path, user_id, write), name="spool-remove")


def _log_lost(count: int, problem: OSError) -> None:
    reason = problem.strerror or type(problem).__name__
    logger.error("not stored, and lost: %d. COMPANION_HOME cannot be written (%s)", count, reason)
