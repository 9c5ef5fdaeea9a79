"""The writes of one user that the store has not taken yet, one at a time, until it does."""

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
"""Seconds that somebody in a conversation waits to hear whether a write is done."""
_PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between tries while the store cannot; the last one repeats


@dataclass(eq=False, slots=True)
class _Entry:
    write: Write
    late: bool = False
    stored: bool = False
    tried: asyncio.Event = field(default_factory=asyncio.Event)

    def has_been_stored(self) -> None:
        self.stored = True


class WriteQueue:
    """Stores in the background what it is given, in order; what fails makes way for the next and is tried again.

    Args:
        store: stores one write, which may be repeated, and tells the cache. It is told whether something else may be in
            the store by now, and calls what it is given as soon as the store has it.
    """

    def __init__(self, store: Callable[[Write, bool, Callable[[], None]], Awaitable[None]]) -> None:
        self._store = store
        self._entries: list[_Entry] = []
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def pending_profile(self) -> str | None:
        """The profile text that waits; None when none does."""
        waiting = (entry.write.text for entry in self._entries if isinstance(entry.write, Profile))
        return next(waiting, None)

    def add(self, write: Write) -> None:
        """Store it in the background."""
        self._enter(_Entry(write))

    async def write(self, write: Write, *, late: bool = False) -> bool:
        """Store it, and wait at most two seconds to hear of the first try.

        Args:
            write: what to store.
            late: whether something else may be in the store by now, as for another try.

        Returns:
            Whether it is stored. If not, it is tried again. A caller who is cancelled stops nothing.
        """
        entry = _Entry(write, late)
        self._enter(entry, first=True)
        self._wake.set()  # the store may be back
        await _happened(entry.tried, FIRST_TRY)
        return entry.stored

    async def drained(self, timeout: float) -> None:
        """Wait until all is stored, at most ``timeout`` seconds."""
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=timeout)

    async def stop(self) -> list[Write]:
        """Try no more. What is not stored, as far as is known; a write under way may still be done."""
        if self._writer is not None and not self._writer.done():
            self._writer.cancel()
            await asyncio.wait({self._writer}, timeout=1.0)
        rest, self._entries = [entry.write for entry in self._entries], []
        return rest

    def _enter(self, entry: _Entry, *, first: bool = False) -> None:
        for other in list(self._entries):  # of profiles only the newest is wanted
            if isinstance(entry.write, Profile) and isinstance(other.write, Profile):
                entry.write = entry.write.after(other.write)
                entry.late = entry.late or other.late
                self._entries.remove(other)
        self._entries.insert(0 if first else len(self._entries), entry)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all(), name="write-queue")

    async def _write_all(self) -> None:
        failures = 0
        while self._entries:
            entry = self._entries[0]
            self._wake.clear()
            try:
                await self._store(entry.write, entry.late, entry.has_been_stored)
            except Exception as problem:  # whatever a store may do, the write is kept and tried again
                if not failures:
                    reason = problem if isinstance(problem, StoreError) else type(problem).__name__
                    logger.warning("a %s waits for the store: %s", kind_of(entry.write), reason)
                entry.late = True
                self._make_way(entry)
                await _happened(self._wake, _PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1
                continue
            if failures:
                logger.info("the store takes what waited for it")
            failures = 0
            entry.tried.set()
            if entry in self._entries:  # else a newer profile has taken its place
                self._entries.remove(entry)

    def _make_way(self, entry: _Entry) -> None:
        """Let the others try before it: a write that this store never takes holds up nobody."""
        entry.tried.set()
        if entry in self._entries:
            self._entries.remove(entry)
            self._entries.append(entry)


async def _happened(event: asyncio.Event, within: float) -> None:
    """Wait for it, at most so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            await event.wait()
