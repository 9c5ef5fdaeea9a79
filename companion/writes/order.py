"""The order in which the writes of one user are tried.

Profiles keep their order among themselves, because a later one may remove a line that an earlier one adds. Every other
write may be tried before or after any.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ..store import Memory, fact_key
from .profile_write import Profile, StoredText
from .records import Write

Date = Callable[[], Awaitable[tuple[Write, bool]]]
"""Returns a write with what was erased and forgotten when its conversation began; and whether that is known."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What has become of a write for good.

    Attributes:
        profile: what is stored now, if the write was a profile's.
        erased: whether it was dropped instead, because the person was erased after its conversation had begun.
    """

    profile: StoredText | None = None
    erased: bool = False


@dataclass(eq=False, slots=True)
class Entry:
    """A write in the queue.

    Attributes:
        write: the write.
        number: its place in the order in which writes were enqueued.
        since: loop time at which it was enqueued.
        late: whether other writers may have written since.
        outcome: what has become of it; None while the store has not confirmed it.
        tried: set after a try.
        date: dates the write before a try; None where it is dated.
    """

    write: Write
    number: int
    since: float
    late: bool = False
    outcome: Stored | None = None
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    date: Date | None = None


class Entries(list[Entry]):
    """The entries of one user's queue; the first is tried next."""

    def put_first(self, entry: Entry) -> None:
        """Add an entry ahead of the others; a profile behind the profiles, which are then ahead of the others."""
        profiles = self._profiles() if isinstance(entry.write, Profile) else []
        self[:] = [*profiles, entry, *(other for other in self if other not in profiles)]

    def move_to_the_end(self, entry: Entry) -> None:
        """Move an entry, and what must not be tried before it, behind the others."""
        if entry in self:
            moved = self.with_those_behind(entry)
            self[:] = [*(other for other in self if other not in moved), *moved]

    def with_those_behind(self, entry: Entry) -> list[Entry]:
        """A write and those that must not be stored before it: with a profile, all of them, for it is the first one."""
        return self._profiles() if isinstance(entry.write, Profile) else [entry]

    def others(self, first: Entry) -> list[Entry]:
        """The writes that may be stored before ``first``: of profiles, only the first one."""
        later = self._profiles()[1:]
        return [entry for entry in self if entry is not first and entry not in later]

    def of_fact(self, write: Write) -> Entry | None:
        """The entry that holds the fact already; None for a write of another kind."""
        if not isinstance(write, Memory):
            return None
        key = fact_key(write.text)
        for entry in self:
            if isinstance(entry.write, Memory) and fact_key(entry.write.text) == key:
                return entry
        return None

    def _profiles(self) -> list[Entry]:
        return [entry for entry in self if isinstance(entry.write, Profile)]
