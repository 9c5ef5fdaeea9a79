"""Unindexed keys, masked until a background scan deletes them.

A scan takes time, and what is stored meanwhile has to be readable. So a key is masked only if it may be an unindexed
one: not a key of the families that every user has, which were deleted by name; not in the index as it was when the
user was cleared, for those were deleted too; and not stored by this process since. What another process stores
meanwhile under a new name is a miss here until the scan has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..keys import FAMILIES, owner
from .glob import matches

MAX_KNOWN: Final = 10_000
WaitingScans = Mapping[str, Mapping[str, int]]
"""By user: the patterns to delete, each with its sequence number."""


@dataclass(slots=True)
class _Mask:
    sequence: int
    known: set[str]  # names that may be served


class UnindexedKeys:
    """The masks of all users whose keys a scan has still to delete."""

    __slots__ = ("_masks",)

    def __init__(self) -> None:
        self._masks: dict[str, dict[str, _Mask]] = {}  # by user and pattern

    def __bool__(self) -> bool:
        return bool(self._masks)

    def mask(self, pattern: str, user_id: str, known: set[str], sequence: int) -> None:
        """Mask what ``pattern`` matches of this user's keys, except the names in ``known``."""
        self._masks.setdefault(user_id, {})[pattern] = _Mask(sequence, known)

    def count(self, user_id: str) -> tuple[int, int]:
        """The number of users with masks, and the number of this user's masks."""
        return len(self._masks), len(self._masks.get(user_id, ()))

    def newest(self, key: str) -> int:
        """The sequence number of the newest mask that hides ``key``; 0 for none."""
        owned = owner(key)
        if owned is None or (masks := self._masks.get(owned[0])) is None or owned[1] in FAMILIES:
            return 0
        hiding = (
            mask.sequence for pattern, mask in masks.items() if owned[1] not in mask.known and matches(pattern, key)
        )
        return max(hiding, default=0)

    def stored(self, key: str, since: int) -> None:
        """Unmask a key that this process stored. ``since``: the newest sequence number when storing began."""
        user_id, name = owner(key) or ("", "")
        for mask in self._masks.get(user_id, {}).values():
            if mask.sequence <= since and len(mask.known) < MAX_KNOWN:
                mask.known.add(name)

    def waiting(self) -> WaitingScans:
        """What a scan that begins now has to delete."""
        return {
            user_id: {pattern: mask.sequence for pattern, mask in masks.items()}
            for user_id, masks in self._masks.items()
        }

    def deleted(self, waiting: WaitingScans) -> None:
        """A scan has deleted these. A mask that was renewed meanwhile stays."""
        for user_id, patterns in waiting.items():
            masks = self._masks.get(user_id, {})
            for pattern, sequence in patterns.items():
                if pattern in masks and masks[pattern].sequence == sequence:
                    del masks[pattern]
            if not masks:
                self._masks.pop(user_id, None)

    def forget(self, user_id: str | None = None) -> None:
        """Drop the masks of one user, or of all: a wider invalidation has taken their place."""
        if user_id is None:
            self._masks.clear()
        else:
            self._masks.pop(user_id, None)
