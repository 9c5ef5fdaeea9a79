"""Pending invalidations: keys to treat as misses until Redis acknowledges the delete.

An invalidation that Redis did not acknowledge is queued, obeyed by this process at once and redelivered when Redis
answers. One user's pattern is delivered in two steps: the keys that are known by name are deleted at once; then the
pattern stays queued, and masks the user's other keys, until a background scan has deleted what it found of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..keys import (
    USERS,
    is_family,
    is_reserved,
    is_user_id,
    lease,
    names_reserved,
    owner,
    stale,
    user_pattern,
    user_prefix,
)
from .glob import matches, plain_start

_MAX_KEYS: Final = 10_000
_MAX_PATTERNS: Final = 100  # that reach several users
MAX_PATTERNS_PER_USER: Final = 100
MAX_USERS: Final = 1_000
MAX_KNOWN: Final = 10_000
_ALL_USERS: Final = f"{USERS}*"
_USER_PREFIXES: Final = (USERS, lease(USERS).rstrip("}"), stale(USERS).rstrip("}"))
"""Prefixes of the users' keys and of the leases and last good values that guard them."""


class PendingPattern(NamedTuple):
    """A pattern to invalidate.

    Attributes:
        glob: the Redis pattern.
        user_id: the user whose keys it is limited to; None for all users.
        own: whether only keys that this layer wrote are deleted (see ``invalidation.ownership``). All that the pattern
            reaches are masked until that is done.
    """

    glob: str
    user_id: str | None
    own: bool = False

    @property
    def start(self) -> str:
        """The literal prefix of every key it reaches."""
        return plain_start(self.glob) if self.user_id is None else user_prefix(self.user_id)

    def reaches(self, key: str) -> bool:
        """Whether it includes ``key``: keys of the layer itself only if it names their prefix literally."""
        if self.user_id is not None and not key.startswith(f"{USERS}{self.user_id}:"):
            return False
        return (not is_reserved(key) or names_reserved(self.glob)) and matches(self.glob, key)


PendingInvalidation = str | PendingPattern
"""A key or a pattern."""


class PendingInvalidations(NamedTuple):
    """Invalidations that Redis has not acknowledged: single keys, and patterns."""

    keys: tuple[str, ...] = ()
    patterns: tuple[PendingPattern, ...] = ()


@dataclass(slots=True)
class _Entry:
    sequence: int
    by_name: bool = False  # whether what is known by name was deleted
    known: set[str] = field(default_factory=set)  # keys that were deleted by name, or stored since

    def hides(self, key: str) -> bool:
        return key not in self.known and not (self.by_name and is_family(key))


def only_user(pattern: str) -> str | None:
    """The one user whose keys ``pattern`` can match; None if it can match several users' keys."""
    owned = owner(f"{plain_start(pattern)}*")
    return owned[0] if owned is not None and is_user_id(owned[0]) else None


class PendingQueue:
    """The queue of pending invalidations, and every other reason not to serve what Redis holds.

    Every entry has a sequence number. An entry that was enqueued again while it was being delivered has a newer one
    and stays queued.

    The queue is bounded in what users can make it grow by: past a bound it collapses to "all keys of this user that
    this layer wrote", then to "all keys of all users that this layer wrote".

    Attributes:
        sequence: sequence number of the newest entry.
        quarantined: sequence number of the quarantine of all users' values (see ``server_epoch``); 0 for none.
    """

    __slots__ = ("_keys", "_keys_limit", "_patterns", "quarantined", "sequence")

    def __init__(self) -> None:
        self.sequence = 0
        self.quarantined = 0
        self._keys: dict[str, int] = {}
        self._keys_limit = _MAX_KEYS
        self._patterns: dict[str | None, dict[PendingPattern, _Entry]] = {}  # by user

    def __bool__(self) -> bool:
        """Whether any key must not be served."""
        return bool(self._keys or self._patterns or self.quarantined)

    @property
    def undelivered(self) -> bool:
        """Whether Redis has still to acknowledge an invalidation, or is in quarantine.

        A pattern whose known keys were deleted by name does not count.
        """
        return bool(self._keys or self.quarantined) or any(not entry.by_name for _, entry in self._entries())

    def undelivered_for(self, users: Collection[str], *, scanning: bool) -> set[str]:
        """Those of ``users`` whose keys an undelivered invalidation may include.

        Args:
            users: user ids.
            scanning: whether a scan is under way; otherwise every pattern that waits for one counts.
        """
        if self.quarantined:
            return set(users)
        owners = {name.split(":", 2)[1] for name in self._keys if name.startswith(USERS)}
        starts = [pattern.start for pattern, entry in self._entries() if not (scanning and entry.by_name)]
        return {
            user for user in users if user in owners or any(f"{USERS}{user}:".startswith(start) for start in starts)
        }

    @property
    def invalidations(self) -> PendingInvalidations:
        """Everything that has to be delivered. A quarantine is not part of it."""
        patterns = (pattern for pattern, entry in self._entries() if not entry.by_name)
        return PendingInvalidations(tuple(self._keys), tuple(patterns))

    def export(self) -> PendingInvalidations:
        """Everything that another cache has to take over if this one closes: patterns that wait for a scan too."""
        return PendingInvalidations(tuple(self._keys), tuple(pattern for pattern, _ in self._entries()))

    # -- enqueueing ------------------------------------------------------------------------------------

    def add(self, *names: str) -> None:
        """Enqueue keys."""
        self.sequence += 1
        self._keys.update(dict.fromkeys(names, self.sequence))
        if len(self._keys) > self._keys_limit:
            others = {name: sequence for name, sequence in self._keys.items() if not name.startswith(_USER_PREFIXES)}
            if len(others) < len(self._keys):
                self.add_pattern(_ALL_USERS, None, own=True)
            self._keys, self._keys_limit = others, len(others) + _MAX_KEYS

    def add_pattern(self, glob: str, user_id: str | None, own: bool = False) -> None:
        """Enqueue a pattern; see :class:`PendingPattern`."""
        user_id = user_id or only_user(glob)
        self._queue(PendingPattern(glob, user_id, own))
        if user_id is not None and len(self._patterns[user_id]) > MAX_PATTERNS_PER_USER:
            del self._patterns[user_id]
            self._queue(PendingPattern(user_pattern(user_id), user_id, own=True))
        of_all = self._patterns.get(None, {})
        of_users = [pattern for pattern in of_all if pattern.glob.startswith(USERS)]
        if len(self._patterns) > MAX_USERS or len(of_users) > _MAX_PATTERNS:
            others = {pattern: entry for pattern, entry in of_all.items() if not pattern.glob.startswith(USERS)}
            self._patterns = {None: others}
            self._queue(PendingPattern(_ALL_USERS, None, own=True))

    def _queue(self, pattern: PendingPattern) -> None:
        self.sequence += 1
        self._patterns.setdefault(pattern.user_id, {})[pattern] = _Entry(self.sequence)

    def merge(self, pending: PendingInvalidations) -> None:
        """Enqueue what another cache could not deliver."""
        if pending.keys:
            self.add(*pending.keys)
        for pattern in pending.patterns:
            self.add_pattern(*pattern)

    def deleted_by_name(self, pattern: PendingPattern, sequence: int, known: set[str]) -> None:
        """What is known of a user's keys was deleted; the rest stays masked until a scan has deleted it.

        Args:
            pattern: a queued pattern. It stays as it is if it was enqueued again meanwhile.
            sequence: its sequence number when the deletion began.
            known: the keys that were deleted. They, and the families, are no longer masked.
        """
        if sequence and self.sequence_of(pattern) == sequence:
            entry = self._patterns[pattern.user_id][pattern]
            entry.by_name, entry.known = True, entry.known | known

    def quarantine(self) -> None:
        """Serve no value of any user from now on."""
        self.sequence += 1
        self.quarantined = self.sequence

    def release(self, quarantine: int) -> None:
        """End the quarantine with this sequence number; a later one stays in force."""
        if self.quarantined == quarantine:
            self.quarantined = 0

    # -- reading ---------------------------------------------------------------------------------------

    def covers(self, key: str) -> bool:
        """Whether the value that Redis holds for ``key`` must not be served."""
        if key in self._keys or (self.quarantined and key.startswith(USERS)):
            return True
        return any(True for _ in self.hiding(key))

    def hiding(self, key: str) -> Iterator[tuple[PendingPattern, int]]:
        """The patterns that hide ``key``, with their sequence numbers."""
        owned = owner(key) if self._patterns else None
        for user_id in (None,) if owned is None else (None, owned[0]):
            for pattern, entry in self._patterns.get(user_id, {}).items():
                if entry.hides(key) and pattern.reaches(key):
                    yield pattern, entry.sequence

    def newest_invalidation(self, key: str) -> int:
        """The sequence number of the newest invalidation that includes ``key``; 0 for none."""
        return max(self._keys.get(key, 0), max((sequence for _, sequence in self.hiding(key)), default=0))

    def newest(self, key: str) -> int:
        """As :meth:`newest_invalidation`, and a quarantine that includes ``key`` counts too."""
        return max(self.newest_invalidation(key), self.quarantined if key.startswith(USERS) else 0)

    def sequence_of(self, entry: PendingInvalidation) -> int:
        """The sequence number of a queued key or pattern; 0 if it is not queued."""
        if isinstance(entry, str):
            return self._keys.get(entry, 0)
        found = self._patterns.get(entry.user_id, {}).get(entry)
        return 0 if found is None else found.sequence

    def to_scan(self) -> Mapping[PendingPattern, int]:
        """The patterns that a scan which begins now has to deliver, with their sequence numbers."""
        return {
            pattern: entry.sequence for pattern, entry in self._entries() if entry.by_name or pattern.user_id is None
        }

    # -- acknowledgement -------------------------------------------------------------------------------

    def acknowledge(self, entry: PendingInvalidation, sequence: int) -> None:
        """Redis has acknowledged ``entry``. It stays queued if it was enqueued again meanwhile."""
        if self.sequence_of(entry) != sequence:
            return
        if isinstance(entry, str):
            del self._keys[entry]
            return
        of_user = self._patterns[entry.user_id]
        del of_user[entry]
        if not of_user:
            del self._patterns[entry.user_id]

    def acknowledge_store(self, key: str, up_to: int) -> None:
        """A newer value of ``key`` was stored, so older invalidations of it need not be delivered.

        Args:
            key: the key.
            up_to: :attr:`sequence` when storing began; Redis may execute a later invalidation after the store.
        """
        if self._keys.get(key, 0) <= up_to:
            self._keys.pop(key, None)
        for pattern, sequence in list(self.hiding(key)):
            known = self._patterns[pattern.user_id][pattern].known
            if sequence <= up_to and len(known) < MAX_KNOWN:
                known.add(key)

    def requeue(self, entry: PendingInvalidation) -> None:
        """Move ``entry`` to the end of the queue: Redis rejected it, and must not hold up the others."""
        if isinstance(entry, str):
            if entry in self._keys:
                self._keys[entry] = self._keys.pop(entry)
        elif entry in (of_user := self._patterns.get(entry.user_id, {})):
            of_user[entry] = of_user.pop(entry)

    def _entries(self) -> Iterator[tuple[PendingPattern, _Entry]]:
        return ((pattern, entry) for of_user in self._patterns.values() for pattern, entry in of_user.items())
