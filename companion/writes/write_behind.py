"""Write-behind: a conversation enqueues its writes and goes on; queues retry them until the store takes them.

What the store does not take soon has a line in the spool (``writes.spool``). The lines that are left when a user's
last conversation ends, or its process is killed, are replayed by the next process that starts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from cache import BackgroundTasks

from ..caching import OutboxRelay
from ..store import DataKind, Memory, Store, StoreError, fact_key
from .beginnings import Beginnings
from .erasure import Eraser
from .order import Stored
from .queue import FIRST_TRY, WriteQueue
from .records import Write, apply_or_follow, kind_of
from .replay import SpoolReplay
from .spool import InFlight, Spool, Spooler

_SPOOL_TIMEOUT: Final = 1.0  # seconds for the last updates of the spool


class WriteBehind:
    """The write-behind queues of one runtime: one for each user, and so one write of a user at a time.

    Args:
        store: returns the store; called when it is needed.
        outbox_relay: invalidates the cache after each write.
        spool: takes what the store does not.

    Attributes:
        beginnings: knows when each conversation began.
        eraser: erases persons.
        spool_replay: stores what earlier processes have spooled.
        unseen_profiles: users whose stored profile the conversation has not seen, because reading it failed.
    """

    def __init__(self, store: Callable[[], Store], outbox_relay: OutboxRelay, spool: Spool) -> None:
        self._store = store
        self._outbox_relay = outbox_relay
        self._queues: dict[str, WriteQueue] = {}
        self._in_flight: dict[str, InFlight] = {}
        self._ended = 0  # queues so far, of any user: what they had stored is not known any more
        self._conversations: Counter[str] = Counter()
        self._background = BackgroundTasks()
        self._spooler = Spooler(spool, self._background)
        self._closed = False
        self.unseen_profiles: set[str] = set()
        self.beginnings = Beginnings(store, spool.folder.parent, lambda: self.eraser.resume())
        self.eraser = Eraser(store, spool, self.beginnings, outbox_relay, self._drop_pending)
        store_late = partial(self._write, late=True, on_stored=lambda _: None)
        self.spool_replay = SpoolReplay(spool, store_late, self.eraser)

    def add(self, user_id: str, *writes: Write) -> None:
        """Enqueue writes of a user. Returns at once."""
        if self._closed:
            self._spooler.add(user_id, [self.beginnings.dated(user_id, write) for write in writes])
            return
        for write in writes:
            self._queue(user_id).add(self.beginnings.dated(user_id, write), self.beginnings.date_later(user_id, write))

    async def write(self, user_id: str, write: Write) -> Stored | None:
        """Enqueue a write of a user, and wait a short while for its first try.

        Returns:
            The outcome. None: it is not stored, and the queue retries it, or the spool has it.
        """
        if self._closed:
            self._spooler.add(user_id, [self.beginnings.dated(user_id, write)])
            return None
        date = self.beginnings.date_later(user_id, write)
        return await self._queue(user_id).write(self.beginnings.dated(user_id, write), date)

    def pending_profile(self, user_id: str) -> str | None:
        """The user's profile as it will be when the pending ones are stored; None when none is pending."""
        queue = self._queues.get(user_id)
        return None if queue is None else queue.pending_profile

    def stored_profile(self, user_id: str) -> str | None:
        """The user's newest stored profile that is known in this process; None if none is."""
        queue = self._queues.get(user_id)
        return None if queue is None else queue.stored_profile

    def reading_profile(self, user_id: str) -> Callable[[str], None]:
        """To be called when a read of the stored profile begins.

        Returns:
            What notes the profile that was read, where it is of use, unless a newer one may have been stored since.
        """
        before, ended = self.stored_profile(user_id), self._ended

        def note(text: str) -> None:
            if self._ended == ended and (self._conversations[user_id] > 0 or user_id in self._queues):
                self._queue(user_id).saw_profile(text, before=before)

        return note

    def waiting_facts(self, user_id: str) -> list[str]:
        """The user's facts that readers of store and cache may not find yet, the newest last."""
        queue = self._queues.get(user_id)
        return [] if queue is None else queue.facts()

    async def withdraw_fact(self, user_id: str, text: str) -> list[Memory]:
        """Take back a fact that waits for the store: a retry must not bring it back after its removal.

        Returns:
            What was taken back.

        Raises:
            StoreError: it is being written, and the store does not answer.
        """
        write, task = self._in_flight.get(user_id, (None, None))
        if task is not None and isinstance(write, Memory) and fact_key(write.text) == fact_key(text):
            await _ended(task, "remove_memory")
        queue = self._queues.get(user_id)
        return [] if queue is None else queue.withdraw_fact(text)

    async def settle(self, user_id: str) -> bool:
        """Treat what waits of a user as late from now on, and wait for the write in flight.

        Returns:
            Whether one was in flight.

        Raises:
            StoreError: the store does not answer it.
        """
        if (queue := self._queues.get(user_id)) is not None:
            queue.mark_late()
        _, task = self._in_flight.get(user_id, (None, None))
        if task is None:
            return False
        await _ended(task, "forget")
        return True

    def begin_conversation(self, user_id: str) -> None:
        """Note that a conversation of a user begins; see ``end_conversation``."""
        self._conversations[user_id] += 1

    async def end_conversation(self, user_id: str, timeout: float) -> int:
        """Wait until the store has taken the user's writes.

        If this was the user's last conversation in this process, the rest is spooled; otherwise the queue retries it.

        Args:
            user_id: the user.
            timeout: seconds to wait.

        Returns:
            The number of writes that are not stored.
        """
        queue = self._queues.get(user_id)
        if queue is not None:
            await queue.drained(timeout)
        self._conversations[user_id] -= 1
        if self._conversations[user_id] > 0:
            return 0 if queue is None else len(queue)
        del self._conversations[user_id]
        self.unseen_profiles.discard(user_id)
        return await self._spool_pending(user_id)

    async def close(self) -> None:
        """Spool every pending write, without another try, and from now on each that is added."""
        await self.spool_replay.close()
        await self.eraser.close()
        await self.beginnings.close()
        self._closed = True
        for user_id in list(self._queues):
            await self._spool_pending(user_id)

    async def finish_spool_updates(self) -> None:
        """Remove from the spool what was stored after all. To be called when no write is in flight any more."""
        await self._background.ended(_SPOOL_TIMEOUT)

    def _drop_pending(self, user_id: str, number: int | None) -> None:
        if (queue := self._queues.get(user_id)) is not None:
            queue.drop(number)

    def _queue(self, user_id: str) -> WriteQueue:
        if user_id not in self._queues:
            store, forget = partial(self._write, user_id), partial(self._forget_queue, user_id)
            self._queues[user_id] = WriteQueue(store, self._spooler.keep(user_id), forget)
        return self._queues[user_id]

    def _forget_queue(self, user_id: str, queue: WriteQueue) -> None:
        """Drop an empty queue, unless a conversation goes on: its tasks hold whatever their caller's context holds."""
        if self._conversations[user_id] <= 0 and self._queues.get(user_id) is queue:
            del self._queues[user_id]
            self._ended += 1
            self._spooler.drop(user_id)

    async def _write(self, user_id: str, write: Write, late: bool, on_stored: Callable[[Stored], None]) -> None:
        """Raises StoreError. A caller's cancellation does not stop the write."""

        async def work() -> DataKind:
            owner, profile = await apply_or_follow(write, self._store(), user_id, late=late)
            on_stored(Stored(profile))  # before the invalidation, which the caller need not wait for
            if profile is not None and (queue := self._queues.get(owner)) is not None:
                queue.stored_profile = profile.text  # of a later conversation, or of one that did not write it
            if profile is not None and profile.facts_changed:
                await self._outbox_relay.invalidate_written(owner, "memory")
            if owner != user_id:
                await self._outbox_relay.invalidate_written(owner, kind_of(write))
            return kind_of(write)

        task = self._outbox_relay.start_write(work(), user_id)
        self._in_flight[user_id] = InFlight(write, task)
        task.add_done_callback(partial(self._landed, user_id))
        await asyncio.shield(task)

    def _landed(self, user_id: str, task: asyncio.Task[None]) -> None:
        if (in_flight := self._in_flight.get(user_id)) is not None and in_flight.task is task:
            del self._in_flight[user_id]

    async def _spool_pending(self, user_id: str) -> int:
        # In a task: a cancelled caller must not lose the writes.
        return await asyncio.shield(self._background.spawn(self._move_to_spool(user_id), name="spool-add"))

    async def _move_to_spool(self, user_id: str) -> int:
        queue = self._queues.pop(user_id, None)
        if queue is None:
            return 0
        self._ended += 1
        return await self._spooler.leave(user_id, queue, self._in_flight.get(user_id))


async def _ended(task: asyncio.Task[None], operation: str) -> None:
    """Wait for a write in flight. Raises StoreError."""
    await asyncio.wait({task}, timeout=FIRST_TRY)
    if not task.done():
        raise StoreError(operation, "a write before it has no answer within the deadline")
