"""Keeps in the spool what a user's queue holds for longer than a healthy store takes, so that no kill loses it."""

from __future__ import annotations

import asyncio
import logging
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from ...waiting import within
from ..records import Write, to_line
from .file import SpoolFile

logger = logging.getLogger("companion")
GRACE: Final = 0.25
"""Seconds that the store has to take a write before the write is spooled: a healthy store costs no disk write."""
RETRY: Final = 5.0
"""Seconds between tries while the disk fails."""


class Pending(Protocol):
    """What the keeper reads of a queue."""

    def oldest(self) -> float | None:
        """The loop's time when the oldest pending write was enqueued; None when no write is pending."""
        ...

    def writes(self) -> list[Write]:
        """The pending writes, in the order in which they were enqueued."""
        ...


class SpoolKeeper:
    """Keeps one user's file in the spool equal to the user's queue, from ``GRACE`` seconds of waiting on.

    A write has a line from ``GRACE`` seconds after it was enqueued, or at once if others wait already. The line is
    struck within ``GRACE`` seconds of the store's confirmation; a process killed in between leaves a write that is
    repeated, which every write may be.

    Args:
        user_id: whose writes.
        file: the file. It is written in threads, and only while writes wait.
    """

    def __init__(self, user_id: str, file: SpoolFile) -> None:
        self._user_id = user_id
        self._file = file
        self._timer: asyncio.TimerHandle | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._added = asyncio.Event()
        self._held: Sequence[Write] | None = ()  # what the file holds; None: unknown, because writing it failed
        self._stopping = asyncio.Event()

    def watch(self, queue: Pending) -> None:
        """Note that a write was enqueued. Costs a timer, and nothing more while the store is healthy."""
        self._added.set()
        if self._timer is None and self._keeping is None and not self._stopping.is_set():
            self._timer = asyncio.get_running_loop().call_later(GRACE, self._check, queue)

    async def finish(self, pending: Sequence[Write]) -> Path | None:
        """Spool what is pending at the end, and leave it to other processes.

        Args:
            pending: the writes that the store has not confirmed.

        Returns:
            The file; None if nothing is pending.

        Raises:
            OSError: it could not be written.
        """
        self._stopping.set()
        if self._timer is not None:
            self._timer.cancel()
        self._added.set()
        if self._keeping is not None:
            await asyncio.wait({self._keeping})
        try:
            if not _same(pending, self._held):
                await self._hold(pending)
        finally:
            path = self._file.release()
        return path if pending else None

    def _check(self, queue: Pending) -> None:
        self._timer = None
        oldest = queue.oldest()
        if oldest is None:
            return
        loop = asyncio.get_running_loop()
        if oldest + GRACE > loop.time():
            self._timer = loop.call_at(oldest + GRACE, self._check, queue)
        else:
            self._keeping = loop.create_task(self._keep(queue), name="spool-keep")

    async def _keep(self, queue: Pending) -> None:
        """Follow the queue until it is empty, and the file is deleted."""
        try:
            while not self._stopping.is_set():
                self._added.clear()
                pending = queue.writes()
                if not _same(pending, self._held):
                    if not await self._try_to_hold(pending):
                        await within(self._stopping.wait(), RETRY)
                elif pending:
                    await within(self._added.wait(), GRACE)
                else:
                    break
        finally:
            self._keeping = None

    async def _try_to_hold(self, writes: Sequence[Write]) -> bool:
        failed_before = self._held is None
        try:
            await self._hold(writes)
        except OSError as problem:
            if not failed_before:
                reason = problem.strerror or type(problem).__name__
                logger.error(
                    "COMPANION_HOME cannot be written (%s): what waits for the store is in memory only", reason
                )
            return False
        return True

    async def _hold(self, writes: Sequence[Write]) -> None:
        self._held = None
        await asyncio.to_thread(lambda: self._file.hold([to_line(self._user_id, write) for write in writes]))
        self._held = writes


def _same(writes: Sequence[Write], held: Sequence[Write] | None) -> bool:
    return held is not None and len(writes) == len(held) and all(map(operator.is_, writes, held))
