"""The outbox: which invalidations the cache may not have heard of, kept beside the data they are about.

Two counters per user and kind of data. `version` counts the writes, in the transaction of each write, whoever makes
it; `delivered` is the version up to which the cache has been told. What is owed is a row whose version is ahead.

Whoever delivers reads the versions first, then invalidates, then settles the versions that were read. So a crash
anywhere leaves the version ahead, and the next to look delivers; at worst the cache is told twice. And a write that
comes after the reading has a higher version than the one that is settled, so nothing settles it but a delivery that
starts later.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

DataKind = Literal["profile", "turn", "memory", "summary", "state"]


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An invalidation that is owed: of `what` of this user, for all writes up to `version`.

    Raises ValueError when `what` is nothing a store keeps.
    """

    user_id: str
    kind: DataKind
    version: int

    def __post_init__(self) -> None:
        if self.kind not in get_args(DataKind):
            raise ValueError("no store keeps this kind of data")


class Outbox(Protocol):
    """The part of a store that remembers what the cache must still be told. Every method raises StoreError."""

    async def pending_changes(self, limit: int = 100, older_than: float = 0) -> list[OutboxRow]:
        """What is owed, to anybody, at most `limit` rows, the longest waiting first.

        Rows written within the last `older_than` seconds are left out: their writer is about to deliver them.
        """
        ...

    async def pending_changes_of(self, user_id: str, kinds: Iterable[DataKind]) -> list[OutboxRow]:
        """What is owed for one user and these kinds of data. To be read before the invalidation is sent."""
        ...

    async def recent_changes(self, within: float, limit: int) -> list[OutboxRow]:
        """What was written within so many seconds, to anybody, owed or not: at most `limit` rows, the newest first."""
        ...

    async def acknowledge(self, rows: Sequence[OutboxRow]) -> None:
        """The cache has been told of these. Settling again, or an older version, changes nothing.

        A version that the outbox does not have (it was read before a backup was restored) settles nothing.
        """
        ...
