"""Writes on their way to the store: tried at once, and again until it takes them.

Nobody's answer waits long for them, and what a person said is not lost with the store: what it has not taken when a
conversation ends goes into a file (:mod:`companion.writes.spool`), and the next process that starts stores it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from cache import BackgroundTasks

from ..caching import OutboxRelay
from ..store import DataKind, Store
from .queue import WriteQueue
from .records import Write, apply
from .replay import SpoolReplay
from .spool import Spool

logger = logging.getLogger("companion")
_STRIKING: Final = 1.0  # seconds


class WriteBehind:
    """The writes of all users of one runtime; those of one user go one at a time.

    Args:
        store: gives the store when it is needed.
        outbox_relay: tells the cache of what was written.
        spool: where to put what the store does not take.
    """

    def __init__(self, store: Callable[[], Store], outbox_relay: OutboxRelay, spool: Spool) -> None:
        self._store = store
        self._outbox_relay = outbox_relay
        self._spool = spool
        self._queues: dict[str, WriteQueue] = {}
        self._flying: dict[str, tuple[Write, asyncio.Task[None]]] = {}
        self._conversations: Counter[str] = Counter()
        self.unseen_profiles: set[str] = set()
        """Users whose profile could not be read, or says more by now than was written in a conversation with them: one
        that they write is not to replace what they have not seen.
        """
        self._behind = BackgroundTasks()
        self.spool_replay = SpoolReplay(spool, partial(self._write, late=True, stored=_nothing))

    def add(self, user_id: str, *writes: Write) -> None:
        """Write these in the background. Returns at once."""
        for write in writes:
            self._queue(user_id).add(write)

    async def write(self, user_id: str, write: Write) -> bool:
        """Write it; see :meth:`WriteQueue.write`. Whether it is stored: if not, it is kept and tried again."""
        return await self._queue(user_id).write(write, late=user_id in self.unseen_profiles)

    def pending_profile(self, user_id: str) -> str | None:
        """The profile text of this user that waits to be stored; None when none does."""
        queue = self._queues.get(user_id)
        return None if queue is None else queue.pending_profile

    def begin_conversation(self, user_id: str) -> None:
        """A conversation of this user begins."""
        self._conversations[user_id] += 1

    async def end_conversation(self, user_id: str, timeout: float) -> int:
        """A conversation of this user ends: wait at most ``timeout`` seconds for all that this user wrote.

        If it was the last one here, the rest goes into a file; else it is still being tried.

        Returns:
            How many writes are not stored.
        """
        queue = self._queues.get(user_id)
        if queue is not None:
            await queue.drained(timeout)
        self._conversations[user_id] -= 1
        if self._conversations[user_id] > 0:
            return 0 if queue is None else len(queue)
        del self._conversations[user_id]
        self.unseen_profiles.discard(user_id)
        return await self._given_up(user_id)

    async def close(self) -> None:
        """Wait for nothing: what is not stored goes into files."""
        await self.spool_replay.close()
        for user_id in list(self._queues):
            await self._given_up(user_id)

    async def finish_spool_updates(self) -> None:
        """To be called when no delivery is under way any more: what was stored after all is struck off its file."""
        await self._behind.ended(_STRIKING)

    def _queue(self, user_id: str) -> WriteQueue:
        if user_id not in self._queues:
            self._queues[user_id] = WriteQueue(partial(self._write, user_id))
        return self._queues[user_id]

    async def _write(self, user_id: str, write: Write, late: bool, stored: Callable[[], None]) -> None:
        """Raises StoreError. Who is cancelled stops nothing."""

        async def work() -> DataKind:
            merged = partial(self._merged, user_id)
            what = await apply(write, self._store(), user_id, late=late, on_merged=merged)
            stored()  # whoever waits need not hear how long the cache takes
            return what

        task = self._outbox_relay.start_write(work(), user_id)
        self._flying[user_id] = write, task
        await asyncio.shield(task)

    def _merged(self, user_id: str) -> None:
        if self._conversations[user_id] > 0:
            self.unseen_profiles.add(user_id)

    async def _given_up(self, user_id: str) -> int:
        # Whoever is cut off here, what was said is kept.
        return await asyncio.shield(self._behind.spawn(self._give_up(user_id), name="spool-add"))

    async def _give_up(self, user_id: str) -> int:
        queue = self._queues.pop(user_id, None)
        rest = [] if queue is None else await queue.stop()
        flying, task = self._flying.pop(user_id, (None, None))
        if not rest:
            return 0
        try:
            path = await asyncio.to_thread(self._spool.add, user_id, rest)
        except OSError as problem:
            reason = problem.strerror or type(problem).__name__
            logger.error("not stored, and lost: %d. COMPANION_HOME cannot be written (%s)", len(rest), reason)
            return len(rest)
        logger.error("not stored: %d. They wait in COMPANION_HOME for the next start", len(rest))
        if flying in rest and task is not None:  # it may still be stored: then it must not be stored again later
            task.add_done_callback(partial(self._landed, path, flying))
        return len(rest)

    def _landed(self, path: Path, write: Write, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._behind.spawn(asyncio.to_thread(self._spool.remove, path, write), name="spool-remove")


def _nothing() -> None:
    """Nobody waits."""
