"""Making cached values go away, and remembering those that Redis could not be told about.

A sweep walks the keyspace with SCAN and removes what matches with UNLINK in batches, so the server is never
held: not by KEYS, and not by one giant DEL. A sweep that could not finish, and a delete that got no answer,
are kept as pending: no value they cover is served until they have been delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from redis.asyncio import Redis

from . import keys
from .glob import matches
from .stats import Call

_SCAN_COUNT: Final = 1000
_BATCH: Final = 500
_MAX_PENDING: Final = 10_000
_MAX_PENDING_PATTERNS: Final = 100


@dataclass(slots=True)
class Invalidation:
    """What a sweep did.

    Attributes:
        deleted: keys that were removed.
        complete: whether Redis answered to the end.
    """

    deleted: int = 0
    complete: bool = False


def scope(pattern: str, user_id: str | None) -> tuple[str, Callable[[str], bool]]:
    """What to SCAN for, and which of the keys found are meant.

    Args:
        pattern: a Redis pattern.
        user_id: None for everything the pattern reaches (never the layer's own keys unless the pattern names
            them literally); else only that user's keys among them.
    """
    if user_id is not None:
        prefix = keys.user_prefix(user_id)
        return keys.user_pattern(user_id), lambda key: key.startswith(prefix) and matches(pattern, key)
    if keys.names_reserved(pattern):
        return pattern, lambda key: True
    return pattern, lambda key: not keys.is_reserved(key)


async def sweep(call: Call, pattern: str, user_id: str | None, outcome: Invalidation) -> None:
    """Remove what ``scope(pattern, user_id)`` means, counting in ``outcome``. Raises what ``call`` raises."""
    match, meant = scope(pattern, user_id)
    cursor = 0
    while True:
        cursor, found = await call(partial(_scan, cursor=cursor, match=match))
        doomed = [key for key in found if meant(key.decode(errors="surrogateescape"))]
        for start in range(0, len(doomed), _BATCH):
            batch = doomed[start : start + _BATCH]
            outcome.deleted += await call(partial(_unlink, names=batch))
        if cursor == 0:
            outcome.complete = True
            return


async def _scan(client: Redis, cursor: int, match: str) -> tuple[int, list[bytes]]:
    position, found = await client.scan(cursor, match=match, count=_SCAN_COUNT)
    return int(position), [name if isinstance(name, bytes) else name.encode() for name in found]


async def _unlink(client: Redis, names: Iterable[str | bytes]) -> int:
    return int(await client.unlink(*names))


class Pending:
    """Invalidations that Redis does not know of yet. Bounded: past the bound they become "everything"."""

    __slots__ = ("_keys", "_patterns", "_serial")

    def __init__(self) -> None:
        # Each debt has a serial number, so that one renewed while it is being delivered is not forgotten.
        self._serial = 0
        self._keys: dict[str, int] = {}
        self._patterns: dict[tuple[str, str | None], int] = {}

    def __bool__(self) -> bool:
        return bool(self._keys or self._patterns)

    def add(self, *names: str) -> None:
        """Remember keys that must go."""
        self._serial += 1
        self._keys.update(dict.fromkeys(names, self._serial))
        if len(self._keys) > _MAX_PENDING:
            self._keys.clear()
            self.add_pattern("*", None)

    def add_pattern(self, pattern: str, user_id: str | None) -> None:
        """Remember a sweep that did not finish."""
        self._serial += 1
        if len(self._patterns) >= _MAX_PENDING_PATTERNS:
            self._patterns.clear()
            pattern, user_id = "*", None
        self._patterns[(pattern, user_id)] = self._serial

    def covers(self, key: str) -> bool:
        """Whether the value Redis holds for ``key`` must not be served."""
        if key in self._keys:
            return True
        return any(matches(p, key) and scope(p, user)[1](key) for p, user in self._patterns)

    def settle(self, key: str) -> None:
        """A newer value of ``key`` has been stored: nothing is owed for it any more."""
        self._keys.pop(key, None)

    async def deliver(self, call: Call) -> None:
        """Tell Redis. What it could not be told stays pending, and the exception goes on."""
        while batch := dict(list(self._keys.items())[:_BATCH]):
            await call(partial(_unlink, names=batch))
            for name, serial in batch.items():
                if self._keys.get(name) == serial:
                    del self._keys[name]
        for debt, serial in list(self._patterns.items()):
            await sweep(call, *debt, Invalidation())
            if self._patterns.get(debt) == serial:
                del self._patterns[debt]
