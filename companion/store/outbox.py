"""The transactional outbox: which invalidations the cache may still need, kept beside the data that changed.

A row for each user and kind of data has two counters. ``version`` counts the writes of any client, in the
transaction of each write; ``delivered`` is the version up to which the invalidation has been acknowledged. A row whose
``version`` is ahead is pending.

A relay reads the pending rows, invalidates, then acknowledges the versions that it read (at-least-once delivery). After
a crash at any point the row is still pending, and the next relay delivers it; at worst an invalidation is delivered
twice. A write that comes after the reading has a higher version than the one acknowledged, so it stays pending.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

DataKind = Literal["profile", "turn", "memory", "summary", "state"]


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row of the outbox: all writes of one kind of a user's data, up to a version.

    Attributes:
        user_id: whose data was written.
        kind: the kind of data.
        version: the number of its writes.

    Raises:
        ValueError: no store has this kind of data.
    """

    user_id: str
    kind: DataKind
    version: int

    def __post_init__(self) -> None:
        if self.kind not in get_args(DataKind):
            raise ValueError("no store keeps this kind of data")


class Outbox(Protocol):
    """The outbox of a store. Every method raises StoreError."""

    async def pending_changes(self, limit: int = 100, older_than: float = 0) -> list[OutboxRow]:
        """Read the pending rows of all users, the longest pending first.

        Args:
            limit: the most rows to return.
            older_than: seconds; rows written more recently are left to the relay of their writer.
        """
        ...

    async def pending_changes_of(self, user_id: str, kinds: Iterable[DataKind]) -> list[OutboxRow]:
        """Read the pending rows of one user. To be read before the invalidation is sent.

        Args:
            user_id: the user.
            kinds: the kinds of data to read the rows of.
        """
        ...

    async def recent_changes(self, within: float, limit: int) -> list[OutboxRow]:
        """Read the rows that were written lately, of all users, pending or not, the newest first.

        Args:
            within: seconds.
            limit: the most rows to return.
        """
        ...

    async def register_cache(self, cache_id: str, *, take_over: bool) -> bool:
        """Ask whether a cache is the one whose workers acknowledge, and note that it is used.

        The first cache of a store is. Another one takes its place, with ``take_over``, once it has not been used for
        longer than a cached value lives: from then on it holds nothing that could be stale.

        Args:
            cache_id: the cache's id.
            take_over: whether the latest writes have been invalidated in this cache.
        """
        ...

    async def acknowledge(self, rows: Sequence[OutboxRow], cache_id: str | None = None) -> None:
        """Record that the invalidations of these rows have been delivered.

        To acknowledge again, or an older version, changes nothing; nor does a version that the outbox does not have
        (one that was read before a backup was restored).

        Args:
            rows: the rows, as they were read.
            cache_id: the cache that they were delivered to; if it is not the registered one, nothing is recorded. None
                for a delivery that counts whatever the cache.
        """
        ...
