"""What is pending for one Redis. The caches of it in one process, each in a loop and perhaps a thread, share this."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import RLock
from typing import Final

from ..keys import FAMILIES, owner
from .pending_pattern import PendingPattern

MAX_KEYS: Final = 10_000
"""Pending keys, beside those that no user can make more of, above which the users' collapse to a pattern."""


@dataclass(slots=True)
class PatternEntry:
    """The state of a pending pattern.

    Attributes:
        sequence: its sequence number.
        by_name: whether what is known by name was deleted.
        known: keys that were deleted by name, or stored since.
    """

    sequence: int
    by_name: bool = False
    known: set[str] = field(default_factory=set)

    def masks(self, key: str) -> bool:
        """Whether a key that the pattern reaches has still to be deleted."""
        owned = owner(key) if self.by_name else None
        of_a_family = owned is not None and owned[1] in FAMILIES  # deleted by name, written by this layer or not
        return not of_a_family and key not in self.known


@dataclass(slots=True)
class PendingEntries:
    """Pending keys and patterns.

    Attributes:
        lock: held while the others are read and changed.
        sequence: sequence number of the newest entry.
        keys: sequence numbers of the pending keys.
        keys_limit: pending keys above which those of users collapse to a pattern.
        patterns: the pending patterns, by user.
        scan: the last scan that any of the caches began.
    """

    lock: RLock = field(default_factory=RLock)
    sequence: int = 0
    keys: dict[str, int] = field(default_factory=dict)
    keys_limit: int = MAX_KEYS
    patterns: dict[str | None, dict[PendingPattern, PatternEntry]] = field(default_factory=dict)
    scan: asyncio.Task[None] | None = None

    @property
    def scanning(self) -> bool:
        """Whether one of the caches scans for what is pending. Its loop may have ended in the middle of that."""
        scan = self.scan
        return scan is not None and not scan.done() and scan.get_loop().is_running()

    def of_patterns(self) -> Iterator[tuple[PendingPattern, PatternEntry]]:
        """The pending patterns of all users, each with its state."""
        return ((pattern, entry) for of_user in self.patterns.values() for pattern, entry in of_user.items())

    def forked(self) -> None:
        """This process is a fork of the one that made this: the threads of that one do not run here."""
        self.lock, self.scan = RLock(), None
