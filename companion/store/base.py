"""What a store keeps (turns, memories, summaries; a profile and a state per user), what it can do, how it fails."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol
from uuid import uuid4

from .outbox import Outbox

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


@dataclass(frozen=True, slots=True)
class Summary:
    """What one conversation was about. A user has at most one summary per conversation.

    Raises ValueError when `at` has no time zone.
    """

    conversation_id: str
    text: str
    at: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", _utc(self.at))


@dataclass(frozen=True, slots=True)
class Context:
    """What a conversation starts from, all of it as it was at one moment.

    `turns` are the user's last ones, oldest first; `summary` is the latest. What there is not is None.
    """

    profile: str | None
    turns: list[Turn]
    summary: Summary | None
    state: dict[str, Any] | None


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


class Store(Outbox, Protocol):
    """What every source of truth can do.

    Every method raises StoreError, and nothing else, when it cannot. A write whose caller is cancelled may still
    be done; since every write may be repeated, that does no harm.
    """

    async def context(self, user_id: str, turns: int = 12) -> Context:
        """Profile, last `turns` turns, latest summary and state, in one request."""
        ...

    async def get_profile(self, user_id: str) -> str | None:
        """The user's profile text, None when there is none."""
        ...

    async def save_profile(self, user_id: str, text: str) -> None:
        """Replaces the user's profile."""
        ...

    async def dated_profile(self, user_id: str) -> tuple[str, datetime] | None:
        """As `get_profile`, and when it was written."""
        ...

    async def swap_profile(self, user_id: str, text: str, *, instead_of: str | None, at: datetime) -> bool:
        """Replaces the user's profile if it is still `instead_of` (None: if there is none). Whether it did.

        `at` is when the text was written, which may have been long before now.
        """
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

    async def save_summary(self, user_id: str, summary: Summary) -> None:
        """Keeps a summary, in place of the one this user's conversation may have."""
        ...

    async def latest_summary(self, user_id: str) -> Summary | None:
        """The user's summary with the latest time, None when there is none."""
        ...

    async def save_state(self, user_id: str, state: dict[str, Any]) -> None:
        """Replaces the user's state, a JSON object.

        A state that is none is a programming error: TypeError or ValueError, before anything is asked.
        """
        ...

    async def get_state(self, user_id: str) -> dict[str, Any] | None:
        """The user's state, None when there is none."""
        ...

    async def close(self) -> None:
        """Lets go of everything. May be called twice.

        Every other method of a closed store raises StoreError with the reason "closed".
        """
        ...


def storable(text: str) -> str:
    """`text` as any database can keep it: NUL and lone surrogates become U+FFFD, nothing else changes."""
    return _UNSTORABLE.sub("\ufffd", text)
