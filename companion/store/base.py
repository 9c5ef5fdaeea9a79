"""What a store keeps (turns, memories, a profile per user), what it can do, and how it fails."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol
from uuid import uuid4

# PostgreSQL refuses NUL in text, and no database can encode half of a surrogate pair.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _new_id() -> str:
    return uuid4().hex


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone is ambiguous: use datetime.now(UTC)")
    return moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing said.

    `id` is the natural key: writing the same turn again changes nothing, so a write may be retried.
    Raises ValueError when `at` has no time zone or `role` is neither of the two.
    """

    role: Literal["user", "assistant"]
    text: str
    at: datetime
    conversation_id: str
    id: str = field(default_factory=_new_id)

    def __post_init__(self) -> None:
        if self.role not in ("user", "assistant"):
            raise ValueError("the role of a turn is 'user' or 'assistant'")
        object.__setattr__(self, "at", _utc(self.at))


@dataclass(frozen=True, slots=True)
class Memory:
    """One remembered fact. `id` is the natural key, as for a turn.

    Raises ValueError when `at` has no time zone.
    """

    text: str
    at: datetime
    id: str = field(default_factory=_new_id)

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", _utc(self.at))


class StoreError(Exception):
    """A store could not do what it was asked.

    `operation` is the method that failed ("save_profile"), `reason` the kind of failure (the name of an
    exception class, a status code). Neither holds anything a user said, so both are safe to log.
    """

    def __init__(self, operation: str, reason: str) -> None:
        super().__init__(operation, reason)
        self.operation = operation
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.operation} failed: {self.reason}"


class Store(Protocol):
    """What every source of truth can do.

    Every method raises StoreError, and nothing else, when it cannot. A write whose caller is cancelled may still
    be done; since every write may be repeated, that does no harm.
    """

    async def get_profile(self, user_id: str) -> str | None:
        """The user's profile text, None when there is none."""
        ...

    async def save_profile(self, user_id: str, text: str) -> None:
        """Replaces the user's profile."""
        ...

    async def add_turn(self, user_id: str, turn: Turn) -> None:
        """Keeps a turn. A turn whose id this user already has changes nothing."""
        ...

    async def recent_turns(self, user_id: str, limit: int = 20) -> list[Turn]:
        """The user's last `limit` turns, oldest first; those of one instant as they were written."""
        ...

    async def add_memory(self, user_id: str, memory: Memory) -> None:
        """Keeps a memory. A memory whose id this user already has changes nothing."""
        ...

    async def search_memories(self, user_id: str, query: str, limit: int = 5) -> list[Memory]:
        """The user's memories that share a word with `query`, best first.

        A query without a word to look for (empty, punctuation, "what is it?") gives the newest.
        """
        ...

    async def close(self) -> None:
        """Lets go of everything. May be called twice.

        Every other method of a closed store raises StoreError with the reason "closed".
        """
        ...


def storable(text: str) -> str:
    """`text` as any database can keep it: NUL and lone surrogates become U+FFFD, nothing else changes."""
    return _UNSTORABLE.sub("\ufffd", text)
