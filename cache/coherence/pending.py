"""Pending invalidations: keys to treat as misses until Redis acknowledges the delete.

An invalidation that Redis did not acknowledge is queued, obeyed by this process at once and redelivered when Redis
answers. Beside the queue stand the unindexed keys, which are masked until a background scan has deleted them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, NamedTuple

from ..keys import USERS, is_reserved, is_user_id, lease, names_reserved, owner, stale, user_pattern, user_prefix
from .glob import matches, plain_start
from .unindexed_keys import UnindexedKeys

_MAX_KEYS: Final = 10_000
_MAX_PATTERNS: Final = 100
MAX_PATTERNS_PER_USER: Final = 10
MAX_SCANNED_USERS: Final = 1_000
_ALL_USERS: Final = f"{USERS}*"
_USER_PREFIXES: Final = (USERS, lease(USERS).rstrip("}"), stale(USERS).rstrip("}"))
"""Prefixes of the users' keys and of the leases and last good values that guard them."""

PendingInvalidation = str | tuple[str, str | None]
"""A key, or a pattern with the user it is limited to (None: all users)."""


class PendingInvalidations(NamedTuple):
    """Invalidations that Redis has not acknowledged.

    Attributes:
        keys: single keys.
        patterns: patterns, each with the user it is limited to (None: all users).
    """

    keys: tuple[str, ...] = ()
    patterns: tuple[tuple[str, str | None], ...] = ()


def reaches(pattern: str, user_id: str | None, key: str) -> bool:
    """Whether invalidating ``pattern``, for one user or for all, includes ``key``."""
    if user_id is not None and not key.startswith(user_prefix(user_id)):
        return False
    return (not is_reserved(key) or names_reserved(pattern)) and matches(pattern, key)


def _only_user(pattern: str) -> str | None:
    """The one user whose keys ``pattern`` can match; None if it can match several users' keys."""
    owned = owner(f"{plain_start(pattern)}*")
    return owned[0] if owned is not None and is_user_id(owned[0]) else None


class PendingQueue:
    """The queue of pending invalidations, and every other reason not to serve what Redis holds.

    Every entry has a sequence number. An entry that was enqueued again while it was being delivered has a newer one
    and stays queued.

    The queue is bounded in what users can make it grow by: past a bound it collapses to "all keys of this user", then
    to "all keys of all users", never to keys of other applications in the same Redis.

    Attributes:
        sequence: sequence number of the newest entry.
        quarantined: sequence number of the quarantine of all users' values (see ``server_epoch``); 0 for none.
        unindexed: keys that a background scan has still to delete.
    """

    __slots__ = ("_keys", "_keys_limit", "_patterns", "quarantined", "sequence", "unindexed")

    def __init__(self) -> None:
        self.sequence = 0
        self.quarantined = 0
        self.unindexed = UnindexedKeys()
        self._keys: dict[str, int] = {}
        self._keys_limit = _MAX_KEYS
        self._patterns: dict[tuple[str, str | None], int] = {}

    def __bool__(self) -> bool:
        """Whether any key must not be served."""
        return bool(self._keys or self._patterns or self.quarantined or self.unindexed)

    @property
    def undelivered(self) -> bool:
        """Whether Redis has still to acknowledge an invalidation, or is in quarantine."""
        return bool(self._keys or self._patterns or self.quarantined)

    def undelivered_for(self, users: Collection[str]) -> set[str]:
        """Those of ``users`` whose keys a pending invalidation may include."""
        if self.quarantined:
            return set(users)
        owners = {name.split(":", 2)[1] for name in self._keys if name.startswith(USERS)}
        owners |= {user for _, user in self._patterns if user is not None}
        starts = [plain_start(pattern) for pattern, user in self._patterns if user is None]
        return {
            user for user in users if user in owners or any(f"{USERS}{user}:".startswith(start) for start in starts)
        }

    @property
    def invalidations(self) -> PendingInvalidations:
        """Everything that has to be delivered. A quarantine is not part of it."""
        return PendingInvalidations(tuple(self._keys), tuple(self._patterns))

    def export(self) -> PendingInvalidations:
        """Everything that another cache has to take over if this one closes: unfinished scans too."""
        scans = ((pattern, user_id) for user_id, found in self.unindexed.waiting().items() for pattern in found)
        return PendingInvalidations(self.invalidations.keys, (*self.invalidations.patterns, *scans))

    # -- enqueueing ------------------------------------------------------------------------------------

    def add(self, *names: str) -> None:
        """Enqueue keys."""
        self.sequence += 1
        self._keys.update(dict.fromkeys(names, self.sequence))
        if len(self._keys) > self._keys_limit:
            others = {name: sequence for name, sequence in self._keys.items() if not name.startswith(_USER_PREFIXES)}
            if len(others) < len(self._keys):
                self._patterns[(_ALL_USERS, None)] = self.sequence
            self._keys, self._keys_limit = others, len(others) + _MAX_KEYS

    def add_pattern(self, pattern: str, user_id: str | None) -> None:
        """Enqueue a pattern, limited to one user's keys unless ``user_id`` is None."""
        self.sequence += 1
        user_id = user_id or _only_user(pattern)
        self._patterns[(pattern, user_id)] = self.sequence
        if user_id is not None:
            of_user = [entry for entry in self._patterns if entry[1] == user_id]
            if len(of_user) > MAX_PATTERNS_PER_USER:
                self._collapse(of_user, (user_pattern(user_id), user_id))
        of_users = [entry for entry in self._patterns if entry[1] is not None or entry[0].startswith(USERS)]
        if len(of_users) > _MAX_PATTERNS:
            self._collapse(of_users, (_ALL_USERS, None))

    def merge(self, pending: PendingInvalidations) -> None:
        """Enqueue what another cache could not deliver."""
        if pending.keys:
            self.add(*pending.keys)
        for pattern, user_id in pending.patterns:
            self.add_pattern(pattern, user_id)

    def mask(self, pattern: str, user_id: str, known: set[str]) -> None:
        """Mask the unindexed keys of one user until a scan has deleted them.

        Args:
            pattern: what was invalidated.
            user_id: whose keys.
            known: names that the index knew; they were deleted by name and are not masked.
        """
        self.sequence += 1
        self.unindexed.mask(pattern, user_id, known, self.sequence)
        users, patterns = self.unindexed.count(user_id)
        if patterns > MAX_PATTERNS_PER_USER:
            self.unindexed.forget(user_id)
            self.add_pattern(user_pattern(user_id), user_id)
        elif users > MAX_SCANNED_USERS:
            self.unindexed.forget()
            self._patterns[(_ALL_USERS, None)] = self.sequence

    def quarantine(self) -> None:
        """Serve no value of any user from now on."""
        self.sequence += 1
        self.quarantined = self.sequence

    def release(self, quarantine: int) -> None:
        """End the quarantine with this sequence number; a later one stays in force."""
        if self.quarantined == quarantine:
            self.quarantined = 0

    def _collapse(self, entries: list[tuple[str, str | None]], into: tuple[str, str | None]) -> None:
        for entry in entries:
            del self._patterns[entry]
        self._patterns[into] = self.sequence

    # -- reading ---------------------------------------------------------------------------------------

    def covers(self, key: str) -> bool:
        """Whether the value that Redis holds for ``key`` must not be served."""
        if key in self._keys or (self.quarantined and key.startswith(USERS)):
            return True
        return bool(self.unindexed and self.unindexed.newest(key)) or any(
            reaches(pattern, user, key) for pattern, user in self._patterns
        )

    def newest_invalidation(self, key: str) -> int:
        """The sequence number of the newest invalidation, or mask, that includes ``key``; 0 for none."""
        matching = (sequence for (pattern, user), sequence in self._patterns.items() if reaches(pattern, user, key))
        return max(self._keys.get(key, 0), self.unindexed.newest(key), max(matching, default=0))

    def newest(self, key: str) -> int:
        """As :meth:`newest_invalidation`, and a quarantine that includes ``key`` counts too."""
        return max(self.newest_invalidation(key), self.quarantined if key.startswith(USERS) else 0)

    def sequence_of(self, entry: PendingInvalidation) -> int:
        """The sequence number of a queued key or pattern; 0 if it is not queued."""
        return self._table(entry).get(entry, 0)

    # -- acknowledgement -------------------------------------------------------------------------------

    def acknowledge(self, entry: PendingInvalidation, sequence: int) -> None:
        """Redis has acknowledged ``entry``. It stays queued if it was enqueued again meanwhile."""
        if self.sequence_of(entry) == sequence:
            del self._table(entry)[entry]

    def acknowledge_store(self, key: str, up_to: int) -> None:
        """A newer value of ``key`` was stored, so older invalidations of it need not be delivered.

        Args:
            key: the key.
            up_to: :attr:`sequence` when storing began; Redis may execute a later invalidation after the store.
        """
        if self._keys.get(key, 0) <= up_to:
            self._keys.pop(key, None)
        if self.unindexed:
            self.unindexed.stored(key, up_to)

    def requeue(self, entry: PendingInvalidation) -> None:
        """Move ``entry`` to the end of the queue: Redis rejected it, and must not hold up the others."""
        table = self._table(entry)
        if entry in table:
            table[entry] = table.pop(entry)

    def _table(self, entry: PendingInvalidation) -> dict[Any, int]:
        return self._keys if isinstance(entry, str) else self._patterns
