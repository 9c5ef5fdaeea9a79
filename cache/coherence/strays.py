"""Keys of a user that no index knows: not served from the moment they were to go until a walk has removed them.

The walk takes its time, and what is stored meanwhile is to be read. So a key is hidden only if it may be a stray: not
one of the families that every user has, which went by name; not in the index as it was when the user was cleared, for
those went too; and not stored by this process since. What another process stores meanwhile under a name that is new is
a miss here until the walk has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..keys import FAMILIES, owner
from .glob import matches

_MAX_KNOWN: Final = 10_000
Waiting = Mapping[str, Mapping[str, int]]
"""Users, the patterns that reach what is to be removed of theirs, and the serial number of each."""


@dataclass(slots=True)
class _Search:
    serial: int
    known: set[str]  # names that may be served


class UnindexedKeys:
    """What walks are still to remove."""

    __slots__ = ("_searches",)

    def __init__(self) -> None:
        self._searches: dict[str, dict[str, _Search]] = {}  # by user and pattern

    def __bool__(self) -> bool:
        return bool(self._searches)

    def hide(self, pattern: str, user_id: str, known: set[str], serial: int) -> None:
        """Serve nothing of this user's that ``pattern`` reaches, but for the names that are known."""
        self._searches.setdefault(user_id, {})[pattern] = _Search(serial, known)

    def count(self, user_id: str) -> tuple[int, int]:
        """For how many users something is hidden, and how many patterns of this one."""
        return len(self._searches), len(self._searches.get(user_id, ()))

    def newest(self, key: str) -> int:
        """The serial number of the newest pattern that hides ``key``; 0 for none."""
        owned = owner(key)
        if owned is None or (searches := self._searches.get(owned[0])) is None or owned[1] in FAMILIES:
            return 0
        hidden = (
            search.serial
            for pattern, search in searches.items()
            if owned[1] not in search.known and matches(pattern, key)
        )
        return max(hidden, default=0)

    def stored(self, key: str, since: int) -> None:
        """What stands under ``key`` is this process's own. ``since``: the newest serial number when storing began."""
        user_id, name = owner(key) or ("", "")
        for search in self._searches.get(user_id, {}).values():
            if search.serial <= since and len(search.known) < _MAX_KNOWN:
                search.known.add(name)

    def waiting(self) -> Waiting:
        """What a walk that begins now is to remove."""
        return {
            user_id: {pattern: search.serial for pattern, search in searches.items()}
            for user_id, searches in self._searches.items()
        }

    def gone(self, waiting: Waiting) -> None:
        """A walk has removed these. What was asked for again meanwhile stays hidden."""
        for user_id, patterns in waiting.items():
            searches = self._searches.get(user_id, {})
            for pattern, serial in patterns.items():
                if pattern in searches and searches[pattern].serial == serial:
                    del searches[pattern]
            if not searches:
                self._searches.pop(user_id, None)

    def forget(self, user_id: str | None = None) -> None:
        """More than these, of this user or of all, is remembered elsewhere."""
        if user_id is None:
            self._searches.clear()
        else:
            self._searches.pop(user_id, None)
