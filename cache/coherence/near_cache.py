"""The near cache: values kept in this process, kept coherent by the server's invalidation messages.

Client-side caching as in the Redis documentation (``CLIENT TRACKING``), opt-in by family of keys (``CACHE_NEAR``).
Five rules, each of which some near cache lacks:

- A value is read on the connection that receives the invalidation messages, so the server tracks it for us.
- A token is registered before the GET is sent; an invalidation message, a write or a delete invalidates the token. A
  value that was already old when its reply was read is never kept.
- When a connection is lost everything read over it is dropped, and nothing is kept until the next one is tracked.
- Nothing is served unless a ping sent within the last second has been answered: a dead connection that reports no
  error turns hits into misses, never into old values.
- An entry never outlives the TTL of its key.

So a change by another process is seen as fast as a push arrives, and within ``MAX_STALENESS`` if the network loses it.
A change by this process is seen at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final

from ..keys import USERS

MAX_STALENESS: Final = 1.0
"""Seconds since the last proof that the connection lives, after which nothing is served."""
MAX_ENTRIES: Final = 10_000
MAX_BYTES: Final = 16 << 20
_OVERHEAD: Final = 300  # bytes an entry costs beside its key and value

MISSING: Final = object()


class NearCache:
    """Bounded by entries and bytes (estimated); evicts the least recently used entry. Has no clock of its own.

    ``families``: last parts of the keys to keep; an empty set keeps nothing. ``entries``: values, and when they expire.
    """

    def __init__(self, families: frozenset[str]) -> None:
        self._families = families
        self.entries: OrderedDict[str, tuple[bytes | str, float]] = OrderedDict()
        self._bytes = 0
        self._reading: dict[str, object] = {}  # the valid tokens

    @property
    def on(self) -> bool:
        """Whether any family is to be kept."""
        return bool(self._families)

    def keeps(self, key: str) -> bool:
        """Whether ``key`` belongs to a family to keep."""
        return key.rpartition(":")[2] in self._families and key.startswith(USERS)

    def get(self, key: str, now: float) -> Any:
        """The entry for ``key``, or MISSING. The caller has checked that the connection is proven."""
        entry = self.entries.get(key)
        if entry is None:
            return MISSING
        if entry[1] <= now:
            self.drop(key)
            return MISSING
        self.entries.move_to_end(key)
        return entry[0]

    def begin(self, key: str) -> object:
        """Return the token for a GET that is about to be sent, on a connection for which the server tracks."""
        return self._reading.setdefault(key, object())

    def end(self, key: str, token: object, value: bytes | str | None, expires_at: float) -> None:
        """Keep the reply to the GET if the token is still valid. Call it also if there was no reply.

        Args:
            key: the key.
            token: from :meth:`begin`. Reads that overlap share one; the first to end may keep its reply.
            value: the value; None keeps nothing.
            expires_at: loop time at which the key expires.
        """
        if token is None or self._reading.get(key) is not token:
            return
        self.drop(key)
        if value is None:
            return
        self.entries[key] = (value, expires_at)
        self._bytes += _size(key, value)
        while len(self.entries) > MAX_ENTRIES or self._bytes > MAX_BYTES:
            self._forget(next(iter(self.entries)))

    def drop(self, key: str) -> None:
        """``key`` has changed, or is about to: drop it, and invalidate the token of reads under way."""
        self._forget(key)
        self._reading.pop(key, None)

    def drop_many(self, names: Iterable[str]) -> None:
        """As :meth:`drop`, for each."""
        for name in names:
            self.drop(name)

    def drop_all(self) -> None:
        """Any key may have changed: drop everything."""
        self.entries.clear()
        self._bytes = 0
        self._reading.clear()

    def drop_where(self, includes: Callable[[str], bool]) -> None:
        """As :meth:`drop`, for each key that this includes."""
        self.drop_many([key for key in (*self.entries, *self._reading) if includes(key)])

    def _forget(self, key: str) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self._bytes -= _size(key, entry[0])


def _size(key: str, value: bytes | str) -> int:
    return len(key) + len(value) + _OVERHEAD
