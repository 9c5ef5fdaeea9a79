"""The write-behind queue of one user: writes that the store has not taken yet, retried one at a time until it does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import Final

from ..store import Memory, PersonErased, StoreError, fact_key
from ..waiting import within
from .order import Date, Entries, Entry, Stored
from .profile_write import Profile
from .records import Write, kind_of

logger = logging.getLogger("companion")
FIRST_TRY: Final = 2.0
"""Seconds that a conversation waits for the outcome of a write's first try."""
_INVALIDATION: Final = 1.0  # seconds: longer than an invalidation takes, with Redis or without
_BACKOFF: Final = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between tries while the store fails; the last one repeats


class WriteQueue:
    """Stores writes in the background, in order, and retries the one that fails.

    A write that the store refuses while it takes another one is moved behind the others. Profiles keep their order
    among themselves: a later one may remove a line that an earlier one adds. ``len()`` of a queue is the number of
    pending writes.

    Args:
        store: stores a write, which may be repeated, and invalidates the cache. It receives the write, whether it is
            late, and a callable to call with the outcome as soon as the store has confirmed.
        on_added: called with the queue when a write was enqueued.
        on_empty: called with the queue when no write is left.

    Attributes:
        stored_profile: the newest stored profile that is known here; None if none was read or stored yet.
    """

    def __init__(
        self,
        store: Callable[[Write, bool, Callable[[Stored], None]], Awaitable[None]],
        on_added: Callable[[WriteQueue], None] = lambda _: None,
        on_empty: Callable[[WriteQueue], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._on_added, self._on_empty = on_added, on_empty
        self._entries = Entries()
        self._numbers = count()
        self.stored_profile: str | None = None
        self._retry_now = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def pending_profile(self) -> str | None:
        """The profile as it will be when the pending ones are stored, as far as is known here; None when none is."""
        text, pending = self.stored_profile, False
        for entry in self._entries:
            if isinstance(entry.write, Profile):
                pending = True
                if entry.outcome is not None and entry.outcome.profile is not None:
                    text = entry.outcome.profile.text
                else:
                    text = entry.write.text if text is None else entry.write.applied_to(text)
        return text if pending else None

    def saw_profile(self, text: str, *, before: str | None) -> None:
        """Note what the store holds: pending profiles will be applied to it.

        Args:
            text: the stored profile, as it was read.
            before: ``stored_profile`` when reading began; if another one was stored since, this one may be older.
        """
        if self.stored_profile == before:
            self.stored_profile = text

    def oldest(self) -> float | None:
        """The loop's time when the oldest pending write was enqueued; None when no write is pending."""
        return min((entry.since for entry in self._entries if entry.outcome is None), default=None)

    def writes(self) -> list[Write]:
        """The pending writes, in the order in which they were enqueued."""
        return [entry.write for entry in sorted(self._entries, key=lambda entry: entry.number) if entry.outcome is None]

    def facts(self) -> list[str]:
        """The facts that are pending, or stored but not invalidated in the cache yet, the newest last."""
        entries = sorted(self._entries, key=lambda entry: entry.number)
        return [entry.write.text for entry in entries if isinstance(entry.write, Memory)]

    def mark_late(self) -> None:
        """Treat the pending writes as late: the user has asked to forget something that they may hold."""
        for entry in self._entries:
            entry.late = True

    def withdraw_fact(self, text: str) -> list[Memory]:
        """Take a pending fact back. One that is being written may be stored all the same."""
        key, facts, others = fact_key(text), [], []
        for entry in self._entries:
            if entry.outcome is None and isinstance(entry.write, Memory) and fact_key(entry.write.text) == key:
                facts.append(entry.write)
                entry.tried.set()
            else:
                others.append(entry)
        self._entries[:] = others
        return facts

    def add(self, write: Write, date: Date | None = None) -> None:
        """Enqueue a write, behind the others. Returns at once.

        Args:
            write: the write.
            date: dates it, where it is not known yet when its conversation began.
        """
        if self._entries.of_fact(write) is None:
            self._enqueue(self._entry(write, date))

    async def write(self, write: Write, date: Date | None = None) -> Stored | None:
        """Enqueue a write, ahead of the others, and wait at most ``FIRST_TRY`` seconds for its first try.

        Args:
            write: the write.
            date: as of ``add``.

        Returns:
            The outcome. None: it is not stored, and the queue retries it, also when the caller is cancelled.
        """
        entry = self._entries.of_fact(write)
        if entry is None:
            entry = self._entry(write, date)
            self._enqueue(entry, first=True)
        elif entry.outcome is not None:
            return entry.outcome
        entry.tried.clear()
        self._retry_now.set()  # the store may be back
        await within(entry.tried.wait(), FIRST_TRY)
        return entry.outcome

    def drop(self, number: int | None) -> None:
        """Drop what waits of an erased person.

        Args:
            number: the number of the erasure; writes of later conversations stay. None: all are dropped.
        """
        dropped = [
            entry for entry in self._entries if number is None or (entry.date is None and entry.write.since < number)
        ]
        for entry in dropped:
            self._drop(entry)

    async def drained(self, timeout: float) -> None:
        """Wait until no write is pending, at most ``timeout`` seconds; longer for the invalidation of a stored one.

        What reads the cache before that gets an older value: only this queue knows the new one.
        """
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=timeout)
            stored = next((entry for entry in self._entries if entry.outcome is not None), None)
            if stored is not None:  # one at most: they are written one at a time
                await within(stored.tried.wait(), _INVALIDATION)

    async def stop(self) -> list[Write]:
        """Retry no more.

        Returns:
            The writes that the store has not confirmed. One that is in flight may still be stored.
        """
        if self._writer is not None and not self._writer.done():
            self._writer.cancel()
            await asyncio.wait({self._writer}, timeout=1.0)
        pending, self._entries = self.writes(), Entries()
        return pending

    def _entry(self, write: Write, date: Date | None) -> Entry:
        return Entry(write, next(self._numbers), asyncio.get_running_loop().time(), date=date)

    def _enqueue(self, entry: Entry, *, first: bool = False) -> None:
        if first:
            self._entries.put_first(entry)
        else:
            self._entries.append(entry)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all(), name="write-queue")
        self._on_added(self)

    async def _write_all(self) -> None:
        failures = 0
        while self._entries:
            first = self._entries[0]
            self._retry_now.clear()
            stored = await self._try(first, failures)
            if not stored and self._entries and self._entries[0] is not first:
                continue  # another one has come first meanwhile
            if not stored and (others := self._entries.others(first)):
                # The order is kept while the store is away; a write that this store never takes does not block others.
                stored = await self._try(others[failures % len(others)], failures + 1)
                if stored:
                    self._entries.move_to_the_end(first)
            if stored and failures:
                logger.info("the store takes what waited for it")
            if not stored:
                await within(self._retry_now.wait(), _BACKOFF[min(failures, len(_BACKOFF) - 1)])
            failures = 0 if stored else failures + 1
        self._on_empty(self)

    async def _try(self, entry: Entry, failures: int) -> bool:
        """Whether the store has taken the write, or refused it for good; then it is removed."""
        try:
            if entry.date is not None:
                entry.write, known = await entry.date()
                entry.date = None if known else entry.date
                if entry not in self._entries:  # withdrawn, or dropped, meanwhile
                    return True
            # One that waited behind others is late too: other writers may have written since.
            late = entry.late or asyncio.get_running_loop().time() - entry.since > FIRST_TRY
            await self._store(entry.write, late, partial(self._mark_stored, entry))
        except Exception as problem:  # whatever a store may raise, the write is kept and retried
            if isinstance(problem, PersonErased) and entry.date is None:  # else it may be of a later conversation
                self._drop(entry)
                return True
            if not failures:
                reason = problem if isinstance(problem, StoreError) else type(problem).__name__
                logger.warning("a %s waits for the store: %s", kind_of(entry.write), reason)
            for each in self._entries.with_those_behind(entry):
                each.late = True
                each.tried.set()
            return False
        entry.tried.set()
        if entry in self._entries:  # else the queue was stopped
            self._entries.remove(entry)
        return True

    def _drop(self, entry: Entry) -> None:
        entry.outcome = Stored(erased=True)
        entry.tried.set()
        self.stored_profile = None
        if entry in self._entries:
            self._entries.remove(entry)

    def _mark_stored(self, entry: Entry, outcome: Stored) -> None:
        entry.outcome = outcome
        entry.tried.clear()  # of an earlier try: this one ends with the invalidation
        if outcome.profile is not None:
            self.stored_profile = outcome.profile.text
