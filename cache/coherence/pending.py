"""Invalidations that Redis could not be told: remembered, obeyed here at once, and delivered when it answers.

Beside them what it has been told and walks are still to find (:mod:`cache.coherence.strays`): obeyed too, but not owed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, NamedTuple

from ..keys import USERS, is_reserved, is_user_id, lease, names_reserved, owner, stale, user_pattern, user_prefix
from .glob import matches, plain_start
from .strays import UnindexedKeys

_MAX_KEYS: Final = 10_000
_MAX_PATTERNS: Final = 100
_MAX_OF_ONE: Final = 10  # patterns of one user
_MAX_WALKED: Final = 1_000  # users for whom there is a walk
_ALL_USERS: Final = f"{USERS}*"
_OF_USERS: Final = (USERS, lease(USERS).rstrip("}"), stale(USERS).rstrip("}"))
"""What the keys of users begin with, and those that guard them: they go with everything of all users."""


PendingInvalidation = str | tuple[str, str | None]
"""A key, or a pattern for one user or for all."""


class PendingInvalidations(NamedTuple):
    """What could not be told: keys, and patterns for one user or for all."""

    keys: tuple[str, ...] = ()
    patterns: tuple[tuple[str, str | None], ...] = ()


def reaches(pattern: str, user_id: str | None, key: str) -> bool:
    """Whether invalidating ``pattern``, for one user or for all, means ``key``."""
    if user_id is not None and not key.startswith(user_prefix(user_id)):
        return False
    return (not is_reserved(key) or names_reserved(pattern)) and matches(pattern, key)


def _whose(pattern: str) -> str | None:
    """The user whose keys alone ``pattern`` reaches; None where it may reach several."""
    owned = owner(f"{plain_start(pattern)}*")
    return owned[0] if owned is not None and is_user_id(owned[0]) else None


class PendingQueue:
    """What must not be served, and what of it is owed.

    Bounded in what users can make it grow by: past the bounds it becomes everything of that user, and then everything
    of all users, but never anything of anybody else in the same Redis.
    """

    __slots__ = ("_keys", "_patterns", "_room", "doubted", "serial", "strays")

    def __init__(self) -> None:
        self.serial = 0
        """Of the newest debt. Each has its own, so that one renewed while it is being delivered is not forgotten."""
        self._keys: dict[str, int] = {}
        self._room = _MAX_KEYS
        self._patterns: dict[tuple[str, str | None], int] = {}
        self.doubted = 0
        """Serial number of the doubt about every value of every user (``server_epoch``); 0 for none."""
        self.strays = UnindexedKeys()
        """What a walk is to remove."""

    def __bool__(self) -> bool:
        """Whether there is anything that must not be served."""
        return bool(self._keys or self._patterns or self.doubted or self.strays)

    @property
    def owes(self) -> bool:
        """Whether Redis has still to be told something, or is doubted."""
        return bool(self._keys or self._patterns or self.doubted)

    def owed_of(self, users: Collection[str]) -> set[str]:
        """Those of them about whose keys something may be owed."""
        if self.doubted:
            return set(users)
        owners = {name.split(":", 2)[1] for name in self._keys if name.startswith(USERS)}
        owners |= {user for _, user in self._patterns if user is not None}
        starts = [plain_start(pattern) for pattern, user in self._patterns if user is None]
        return {
            user for user in users if user in owners or any(f"{USERS}{user}:".startswith(start) for start in starts)
        }

    def add(self, *names: str) -> None:
        """Remember keys that must go."""
        self.serial += 1
        self._keys.update(dict.fromkeys(names, self.serial))
        if len(self._keys) > self._room:
            others = {name: serial for name, serial in self._keys.items() if not name.startswith(_OF_USERS)}
            if len(others) < len(self._keys):
                self._patterns[(_ALL_USERS, None)] = self.serial
            self._keys, self._room = others, len(others) + _MAX_KEYS

    def add_pattern(self, pattern: str, user_id: str | None) -> None:
        """Remember a sweep that did not finish."""
        self.serial += 1
        user_id = user_id or _whose(pattern)
        self._patterns[(pattern, user_id)] = self.serial
        if user_id is not None:
            own = [debt for debt in self._patterns if debt[1] == user_id]
            if len(own) > _MAX_OF_ONE:
                self._replace(own, (user_pattern(user_id), user_id))
        everybodys = [debt for debt in self._patterns if debt[1] is not None or debt[0].startswith(USERS)]
        if len(everybodys) > _MAX_PATTERNS:
            self._replace(everybodys, (_ALL_USERS, None))

    def hide(self, pattern: str, user_id: str, known: set[str]) -> None:
        """Remember a sweep of which a walk for strays is left. ``known``: names of this user's that are none."""
        self.serial += 1
        self.strays.hide(pattern, user_id, known, self.serial)
        users, patterns = self.strays.count(user_id)
        if patterns > _MAX_OF_ONE:
            self.strays.forget(user_id)
            self.add_pattern(user_pattern(user_id), user_id)
        elif users > _MAX_WALKED:
            self.strays.forget()
            self._patterns[(_ALL_USERS, None)] = self.serial

    @property
    def debts(self) -> PendingInvalidations:
        """All that is owed; a doubt is none."""
        return PendingInvalidations(tuple(self._keys), tuple(self._patterns))

    @property
    def left(self) -> PendingInvalidations:
        """All that somebody else has to see to if this process does not: walks too."""
        walks = ((pattern, user_id) for user_id, found in self.strays.waiting().items() for pattern in found)
        return PendingInvalidations(self.debts.keys, (*self.debts.patterns, *walks))

    def take_over(self, debts: PendingInvalidations) -> None:
        """Remember what somebody else owes."""
        if debts.keys:
            self.add(*debts.keys)
        for pattern, user_id in debts.patterns:
            self.add_pattern(pattern, user_id)

    def _replace(self, debts: list[tuple[str, str | None]], by: tuple[str, str | None]) -> None:
        for debt in debts:
            del self._patterns[debt]
        self._patterns[by] = self.serial

    def doubt(self) -> None:
        """From now on no value of a user is served."""
        self.serial += 1
        self.doubted = self.serial

    def trust(self, doubt: int) -> None:
        """What gave rise to this doubt is settled; a later one stays."""
        if self.doubted == doubt:
            self.doubted = 0

    def covers(self, key: str) -> bool:
        """Whether the value Redis holds for ``key`` must not be served."""
        if key in self._keys or (self.doubted and key.startswith(USERS)):
            return True
        return bool(self.strays and self.strays.newest(key)) or any(
            reaches(pattern, user, key) for pattern, user in self._patterns
        )

    def owed(self, key: str) -> int:
        """The serial number of the newest debt, or walk, that reaches ``key``; 0 for none."""
        serials = (serial for (pattern, user), serial in self._patterns.items() if reaches(pattern, user, key))
        return max(self._keys.get(key, 0), self.strays.newest(key), max(serials, default=0))

    def newest(self, key: str) -> int:
        """As :meth:`owed`, a doubt that covers ``key`` included."""
        return max(self.owed(key), self.doubted if key.startswith(USERS) else 0)

    def settle(self, key: str, paid: int) -> None:
        """A newer value of ``key`` has been stored: nothing is owed for it any more that was owed before.

        Args:
            key: the key.
            paid: :attr:`serial` when storing began; what came since may not have been told before the value.
        """
        if self._keys.get(key, 0) <= paid:
            self._keys.pop(key, None)
        if self.strays:
            self.strays.stored(key, paid)

    def serial_of(self, debt: PendingInvalidation) -> int:
        """The serial number of a key or a pattern that is owed; 0 if it is not."""
        return self._book(debt).get(debt, 0)

    def paid(self, debt: PendingInvalidation, serial: int) -> None:
        """Redis has been told. One that was renewed meanwhile stays owed."""
        if self.serial_of(debt) == serial:
            del self._book(debt)[debt]

    def put_off(self, debt: PendingInvalidation) -> None:
        """Redis has refused to be told: all else that is owed comes before it next time."""
        book = self._book(debt)
        if debt in book:
            book[debt] = book.pop(debt)

    def _book(self, debt: PendingInvalidation) -> dict[Any, int]:
        return self._keys if isinstance(debt, str) else self._patterns
