"""The write-behind queue of one user: writes that the store has not taken yet, retried one at a time until it does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from ..store import StoreError
from .records import Profile, Write, kind_of

logger = logging.getLogger("companion")
FIRST_TRY: Final = 2.0
"""Seconds that a conversation waits for the outcome of a write's first try."""
_BACKOFF: Final = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between tries while the store fails; the last one repeats


@dataclass(eq=False, slots=True)
class _Entry:
    write: Write
    unseen: bool = False
    stored: bool = False
    tried: asyncio.Event = field(default_factory=asyncio.Event)

    def mark_stored(self) -> None:
        self.stored = True


class WriteQueue:
    """Stores writes in the background, in order; one that fails is moved behind the others and retried.

    Of profiles only the newest is kept. ``len()`` of a queue is the number of pending writes.

    Args:
        store: stores a write, which may be repeated, and invalidates the cache. It receives the write, whether its
            author may not have seen the stored profile, and a callable to call as soon as the store has confirmed.
    """

    def __init__(self, store: Callable[[Write, bool, Callable[[], None]], Awaitable[None]]) -> None:
        self._store = store
        self._entries: list[_Entry] = []
        self._retry_now = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def pending_profile(self) -> str | None:
        """The text of the pending profile; None when none is pending."""
        pending = (entry.write.text for entry in self._entries if isinstance(entry.write, Profile))
        return next(pending, None)

    def add(self, write: Write) -> None:
        """Enqueue a write, behind the others. Returns at once."""
        self._enqueue(_Entry(write))

    async def write(self, write: Write, *, unseen: bool = False) -> bool:
        """Enqueue a write, ahead of the others, and wait at most ``FIRST_TRY`` seconds for its first try.

        Args:
            write: the write.
            unseen: whether its author may not have seen the stored profile.

        Returns:
            Whether it is stored. If not, the queue retries it, also when the caller is cancelled.
        """
        entry = _Entry(write, unseen)
        self._enqueue(entry, first=True)
        self._retry_now.set()  # the store may be back
        await _wait(entry.tried, FIRST_TRY)
        return entry.stored

    async def drained(self, timeout: float) -> None:
        """Wait until no write is pending, at most ``timeout`` seconds."""
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=timeout)

    async def stop(self) -> list[Write]:
        """Retry no more.

        Returns:
            The writes that the store has not confirmed. One that is in flight may still be stored.
        """
        if self._writer is not None and not self._writer.done():
            self._writer.cancel()
            await asyncio.wait({self._writer}, timeout=1.0)
        pending, self._entries = [entry.write for entry in self._entries], []
        return pending

    def _enqueue(self, entry: _Entry, *, first: bool = False) -> None:
        for other in list(self._entries):
            if isinstance(entry.write, Profile) and isinstance(other.write, Profile):
                entry.write = entry.write.after(other.write)
                entry.unseen = entry.unseen or other.unseen
                self._entries.remove(other)
        self._entries.insert(0 if first else len(self._entries), entry)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all(), name="write-queue")

    async def _write_all(self) -> None:
        failures = 0
        while self._entries:
            entry = self._entries[0]
            self._retry_now.clear()
            try:
                await self._store(entry.write, entry.unseen, entry.mark_stored)
            except Exception as problem:  # whatever a store may raise, the write is kept and retried
                if not failures:
                    reason = problem if isinstance(problem, StoreError) else type(problem).__name__
                    logger.warning("a %s waits for the store: %s", kind_of(entry.write), reason)
                entry.unseen = True
                entry.tried.set()
                self._move_to_the_end(entry)
                await _wait(self._retry_now, _BACKOFF[min(failures, len(_BACKOFF) - 1)])
                failures += 1
                continue
            if failures:
                logger.info("the store takes what waited for it")
            failures = 0
            entry.tried.set()
            if entry in self._entries:  # else a newer profile has replaced it
                self._entries.remove(entry)

    def _move_to_the_end(self, entry: _Entry) -> None:
        """So that a write which this store never takes does not block the others."""
        if entry in self._entries:
            self._entries.remove(entry)
            self._entries.append(entry)


async def _wait(event: asyncio.Event, timeout: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await event.wait()
