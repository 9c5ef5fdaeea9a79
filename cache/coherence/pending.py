"""Pending invalidations: keys to treat as misses until Redis acknowledges the delete.

An invalidation that Redis did not acknowledge is queued, obeyed by this process at once and redelivered when Redis
answers. One user's pattern is delivered in two steps: the keys that are known by name are deleted at once; then the
pattern stays queued, and masks the user's other keys, until a background scan has deleted what it found of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Concatenate, Final, NamedTuple, ParamSpec, TypeVar

from ..keys import USERS, guarded_by, owner, user_pattern
from .delivered import Delivered
from .pending_entries import MAX_KEYS, PatternEntry, PendingEntries
from .pending_pattern import PendingInvalidation, PendingInvalidations, PendingPattern, only_user

P = ParamSpec("P")
T = TypeVar("T")
_MAX_PATTERNS: Final = 100  # that reach several users
MAX_PATTERNS_PER_USER: Final = 100
MAX_USERS: Final = 1_000
MAX_KNOWN: Final = 10_000
_ALL_USERS: Final = f"{USERS}*"


def _locked(
    method: Callable[Concatenate[PendingQueue, P], T],
) -> Callable[Concatenate[PendingQueue, P], T]:
    @wraps(method)
    def locked(queue: PendingQueue, /, *args: P.args, **options: P.kwargs) -> T:
        with queue.shared.lock:
            return method(queue, *args, **options)

    return locked


class Quarantine(NamedTuple):
    """Users' values that are not served, whatever the server holds: its sequence number, and which keys it includes."""

    sequence: int
    includes: Callable[[str], bool]


class PendingQueue:
    """The queue of pending invalidations, and every other reason not to serve what Redis holds.

    Every entry has a sequence number. An entry that was enqueued again while it was being delivered has a newer one
    and stays queued.

    The queue is bounded in what users can make it grow by: past a bound it collapses to "all keys of this user that
    this layer wrote", then to "all keys of all users that this layer wrote".

    Args:
        shared: the entries of all caches of the same Redis in this process; None for entries of its own. A quarantine
            is of one cache, because each connection may have another server.

    Attributes:
        shared: the entries.
        quarantines: of users' values (see ``server_epoch``), by what is not trusted.
        delivered: what this cache delivered lately.
    """

    def __init__(self, shared: PendingEntries | None = None) -> None:
        self.shared = PendingEntries() if shared is None else shared
        self.quarantines: dict[object, Quarantine] = {}
        self.delivered = Delivered()

    @property
    def sequence(self) -> int:
        """Sequence number of the newest entry."""
        return self.shared.sequence

    def __bool__(self) -> bool:
        """Whether any key must not be served."""
        return bool(self.shared.keys or self.shared.patterns or self.quarantines)

    @property
    @_locked
    def undelivered(self) -> bool:
        """Whether an invalidation waits for Redis to acknowledge it; not what a scan under way finds beside names."""
        return bool(self.quarantines or self.shared.keys or self._undelivered_patterns())

    @_locked
    def undelivered_for(self, users: Collection[str]) -> set[str]:
        """Those of these users whose keys an undelivered invalidation may include."""
        if self.quarantines:
            return set(users)
        owners = {name.split(":", 2)[1] for name in self.shared.keys if name.startswith(USERS)}
        starts = [pattern.start for pattern in self._undelivered_patterns()]
        return {
            user for user in users if user in owners or any(f"{USERS}{user}:".startswith(start) for start in starts)
        }

    def _undelivered_patterns(self) -> list[PendingPattern]:
        scanning = self.shared.scanning
        return [pattern for pattern, entry in self.shared.of_patterns() if not (scanning and entry.by_name)]

    @property
    @_locked
    def invalidations(self) -> PendingInvalidations:
        """What has to be delivered, but for patterns of which a scan has only to find what has no known name."""
        patterns = (pattern for pattern, entry in self.shared.of_patterns() if not entry.by_name)
        return PendingInvalidations(tuple(self.shared.keys), tuple(patterns))

    # -- enqueueing ------------------------------------------------------------------------------------

    @_locked
    def add(self, *names: str) -> None:
        """Enqueue keys."""
        self.shared.sequence += 1
        self.shared.keys.update(dict.fromkeys(names, self.sequence))
        if len(self.shared.keys) > self.shared.keys_limit:
            named = ((guarded_by(name) or name, name, last) for name, last in self.shared.keys.items())
            others = {name: last for key, name, last in named if not key.startswith(USERS)}
            if len(others) < len(self.shared.keys):
                self.add_pattern(_ALL_USERS, None, own=True)
            self.shared.keys, self.shared.keys_limit = others, len(others) + MAX_KEYS

    @_locked
    def add_pattern(
        self, glob: str, user_id: str | None, own: bool = False, where: Callable[[str], bool] | None = None
    ) -> None:
        """Enqueue a pattern; see :class:`PendingPattern`."""
        user_id = user_id or only_user(glob)
        self._queue(PendingPattern(glob, user_id, own, where))
        if user_id is not None and len(self.shared.patterns[user_id]) > MAX_PATTERNS_PER_USER:
            del self.shared.patterns[user_id]
            self._queue(PendingPattern(user_pattern(user_id), user_id, own=True))
        of_all = self.shared.patterns.get(None, {})
        of_users = [pattern for pattern in of_all if pattern.glob.startswith(USERS)]
        if len(self.shared.patterns) > MAX_USERS or len(of_users) > _MAX_PATTERNS:
            others = {pattern: entry for pattern, entry in of_all.items() if not pattern.glob.startswith(USERS)}
            self.shared.patterns = {None: others}
            self._queue(PendingPattern(_ALL_USERS, None, own=True))

    def _queue(self, pattern: PendingPattern) -> None:
        self.shared.sequence += 1
        self.shared.patterns.setdefault(pattern.user_id, {})[pattern] = PatternEntry(self.sequence)

    @_locked
    def deleted_by_name(self, pattern: PendingPattern, sequence: int, known: set[str]) -> None:
        """What is known of a user's keys was deleted; the rest stays masked until a scan has deleted it.

        Args:
            pattern: a queued pattern. It stays as it is if it was enqueued again meanwhile.
            sequence: its sequence number when the deletion began.
            known: the keys that were deleted.
        """
        if sequence and self.sequence_of(pattern) == sequence:
            entry = self.shared.patterns[pattern.user_id][pattern]
            entry.by_name, entry.known = True, entry.known | known

    def deliver_again(self, includes: Callable[[str], bool], uptime: float) -> None:
        """Another server has the keys that this includes. It has been running for so many seconds."""
        lately = self.delivered.take(includes, uptime)
        self.add(*(entry for entry in lately if isinstance(entry, str)))
        for entry in lately:
            if not isinstance(entry, str):
                self.add_pattern(*entry)

    @_locked
    def quarantine(self, source: object, includes: Callable[[str], bool]) -> None:
        """Serve no value of any user from ``source`` from now on.

        ``includes``: whether a key is on it.
        """
        self.shared.sequence += 1
        self.quarantines[source] = Quarantine(self.sequence, includes)

    def quarantined(self, source: object) -> int:
        """The sequence number of the quarantine of ``source``; 0 for none."""
        found = self.quarantines.get(source)
        return 0 if found is None else found.sequence

    def release(self, source: object, quarantine: int | None = None) -> None:
        """End the quarantine of ``source`` that has this sequence number; a later one stays in force."""
        if quarantine is None or self.quarantined(source) == quarantine:
            self.quarantines.pop(source, None)

    # -- reading ---------------------------------------------------------------------------------------

    def masks(self, key: str) -> bool:
        """Whether the value that Redis holds for ``key`` must not be served."""
        return self.newest(key) > 0

    @_locked
    def masking(self, key: str) -> list[tuple[PendingPattern, int]]:
        """The patterns that mask ``key``, with their sequence numbers."""
        owned = owner(key) if self.shared.patterns else None
        return [
            (pattern, entry.sequence)
            for user_id in ((None,) if owned is None else (None, owned[0]))
            for pattern, entry in self.shared.patterns.get(user_id, {}).items()
            if entry.masks(key) and pattern.reaches(key)
        ]

    @_locked
    def newest_invalidation(self, key: str) -> int:
        """The sequence number of the newest invalidation that includes ``key``; 0 for none."""
        return max(self.shared.keys.get(key, 0), max((sequence for _, sequence in self.masking(key)), default=0))

    def newest(self, key: str) -> int:
        """As :meth:`newest_invalidation`, and a quarantine that includes ``key`` counts too."""
        newest = self.newest_invalidation(key)
        if self.quarantines and key.startswith(USERS):
            newest = max(newest, *(each.sequence for each in self.quarantines.values() if each.includes(key)), 0)
        return newest

    @_locked
    def sequence_of(self, entry: PendingInvalidation) -> int:
        """The sequence number of a queued key or pattern; 0 if it is not queued."""
        if isinstance(entry, str):
            return self.shared.keys.get(entry, 0)
        found = self.shared.patterns.get(entry.user_id, {}).get(entry)
        return 0 if found is None else found.sequence

    @_locked
    def to_scan(self) -> Mapping[PendingPattern, int]:
        """The patterns that a scan which begins now has to deliver, with their sequence numbers."""
        return {
            pattern: entry.sequence
            for pattern, entry in self.shared.of_patterns()
            if entry.by_name or pattern.user_id is None
        }

    # -- acknowledgement -------------------------------------------------------------------------------

    @_locked
    def acknowledge(self, entry: PendingInvalidation, sequence: int) -> None:
        """Redis has acknowledged ``entry``. It stays queued if it was enqueued again meanwhile."""
        if self.sequence_of(entry) != sequence:
            return
        self.delivered.note(entry)
        if isinstance(entry, str):
            del self.shared.keys[entry]
            return
        of_user = self.shared.patterns[entry.user_id]
        del of_user[entry]
        if not of_user:
            del self.shared.patterns[entry.user_id]

    @_locked
    def acknowledge_store(self, key: str, up_to: int) -> None:
        """A newer value of ``key`` was stored, so older invalidations of it need not be delivered.

        Args:
            key: the key.
            up_to: :attr:`sequence` when storing began; Redis may execute a later invalidation after the store.
        """
        if self.shared.keys.get(key, 0) <= up_to:
            self.shared.keys.pop(key, None)
        for pattern, sequence in self.masking(key):
            known = self.shared.patterns[pattern.user_id][pattern].known
            if sequence <= up_to and len(known) < MAX_KNOWN:
                known.add(key)

    @_locked
    def requeue(self, entry: PendingInvalidation) -> None:
        """Move ``entry`` to the end of the queue: Redis rejected it, and must not hold up the others."""
        if isinstance(entry, str):
            if entry in self.shared.keys:
                self.shared.keys[entry] = self.shared.keys.pop(entry)
        elif self.sequence_of(entry):
            of_user = self.shared.patterns[entry.user_id] = self.shared.patterns.pop(entry.user_id)
            of_user[entry] = of_user.pop(entry)
