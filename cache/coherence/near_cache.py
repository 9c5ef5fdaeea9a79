"""The near cache: values kept in this process, kept coherent by the server's own pushes.

Opt-in by family of keys (``CACHE_NEAR``). The rules, each of which some near cache lacks:

- the value is read on the connection that receives the invalidations, so the server knows we hold it;
- a token is registered before the GET goes out, and a push, a write or a delete spoils it: a value that was
  already old when its reply was read is never kept;
- when the connection is lost everything is dropped, and nothing is kept until tracking is armed anew;
- nothing is served unless a ping sent within the last second has been answered, so a link that is dead without
  saying so makes the near cache silent, not wrong;
- an entry never outlives the key's remaining TTL.

So another process's change is seen within the time a push takes, and within ``MAX_STALENESS`` if the network
loses it. A change made by this process is seen at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

MAX_STALENESS: Final = 1.0
"""Seconds after which an unproven link serves nothing."""
MAX_ENTRIES: Final = 10_000
MAX_BYTES: Final = 16 << 20
_OVERHEAD: Final = 300  # bytes an entry costs beside its key and value

MISSING: Final = object()


class Token:
    """The right to keep a value that is being read, until something spoils it."""

    __slots__ = ("clean", "key", "readers")

    def __init__(self, key: str) -> None:
        self.key = key
        self.clean = True
        self.readers = 0


class NearCache:
    """Bounded by entries and bytes, least recently used out first. Knows no clock and no connection of its own.

    Args:
        families: last parts of the keys that are kept; none keeps nothing.
        max_entries: entries at most.
        max_bytes: bytes at most, estimated.
    """

    def __init__(self, families: frozenset[str], *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._families = families
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self.entries: OrderedDict[str, tuple[bytes | str, float]] = OrderedDict()
        self._bytes = 0
        self._reading: dict[str, Token] = {}
        self.armed = False
        """Whether the server tracks what is read on the present connection."""

    @property
    def on(self) -> bool:
        """Whether any family is kept."""
        return bool(self._families)

    def __len__(self) -> int:
        return len(self.entries)

    def keeps(self, key: str) -> bool:
        """Whether ``key`` belongs to a family that is kept."""
        return key.rpartition(":")[2] in self._families and key.startswith("user:")

    def get(self, key: str, now: float) -> Any:
        """What is kept for ``key``, or MISSING. The caller has made sure that the link is proven.

        Args:
            key: the key.
            now: the loop's time, in seconds.
        """
        entry = self.entries.get(key)
        if entry is None:
            return MISSING
        if entry[1] <= now:
            self.drop(key)
            return MISSING
        self.entries.move_to_end(key)
        return entry[0]

    def begin(self, key: str) -> Token | None:
        """Before the GET goes out: the token to keep its reply with. None while nothing may be kept."""
        if not self.armed:
            return None
        token = self._reading.get(key)
        if token is None:
            token = self._reading[key] = Token(key)
        token.readers += 1
        return token

    def end(self, token: Token | None, value: bytes | str | None, expires_at: float) -> None:
        """The reply is here: keep it if nothing spoilt the token. Call it also when there was none.

        Args:
            token: from :meth:`begin`.
            value: the value; None keeps nothing.
            expires_at: loop time at which the key expires.
        """
        if token is None:
            return
        token.readers -= 1
        if not token.readers and self._reading.get(token.key) is token:
            del self._reading[token.key]
        if value is None or not token.clean or not self.armed:
            return
        self._forget(token.key)
        self.entries[token.key] = (value, expires_at)
        self._bytes += _size(token.key, value)
        while len(self.entries) > self._max_entries or self._bytes > self._max_bytes:
            self._forget(next(iter(self.entries)))

    def drop(self, key: str) -> None:
        """``key`` has changed, or is about to: forget it, and spoil the reads under way."""
        self._forget(key)
        token = self._reading.pop(key, None)
        if token is not None:
            token.clean = False

    def drop_many(self, names: Iterable[str]) -> None:
        """As :meth:`drop`, for each."""
        for name in names:
            self.drop(name)

    def drop_all(self) -> None:
        """Anything may have changed."""
        self.entries.clear()
        self._bytes = 0
        for token in self._reading.values():
            token.clean = False
        self._reading.clear()

    def disarm(self) -> None:
        """The connection is lost: keep nothing, serve nothing, until tracking is armed anew."""
        self.armed = False
        self.drop_all()

    def arm(self) -> None:
        """The server tracks this connection from here on; what was read before it did does not count."""
        self.drop_all()
        self.armed = self.on

    def _forget(self, key: str) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self._bytes -= _size(key, entry[0])


def _size(key: str, value: bytes | str) -> int:
    return len(key) + len(value) + _OVERHEAD
