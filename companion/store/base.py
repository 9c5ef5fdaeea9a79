"""The Store protocol: what a store keeps, what it can do, and how it fails."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol
from uuid import uuid4

from ..text import storable
from .erasures import Erasures, PendingErasure
from .forgetting import Forgetting
from .outbox import Outbox
from .profile_history import ProfileHistory, ProfileVersion

MAX_TURN_TEXT: Final = 2000
"""Characters of a turn that a context holds; the store keeps all of them."""


def _new_id() -> str:
    return uuid4().hex


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone is ambiguous: use datetime.now(UTC)")
    return moment.astimezone(UTC)


def _make_storable(record: object, *names: str) -> None:
    for name in names:
        object.__setattr__(record, name, storable(getattr(record, name)))


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing said.

    Attributes:
        role: who said it.
        text: what was said.
        at: when; kept in UTC.
        conversation_id: the conversation it belongs to.
        id: the natural key: to write a turn again changes nothing, so a write may be retried.
        skipped: it becomes no topic, no summary and no greeting. To write a turn again with it marks the stored one.
            ``recent_turns`` does not read it.
        since: the erasures that were done when the conversation began (``erasures``); not kept by the store.

    Raises:
        ValueError: ``at`` has no time zone, or ``role`` is neither of the two.
    """

    role: Literal["user", "assistant"]
    text: str
    at: datetime
    conversation_id: str
    id: str = field(default_factory=_new_id)
    skipped: bool = field(default=False, compare=False)
    since: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if self.role not in ("user", "assistant"):
            raise ValueError("the role of a turn is 'user' or 'assistant'")
        object.__setattr__(self, "at", _utc(self.at))
        _make_storable(self, "text", "conversation_id", "id")


@dataclass(frozen=True, slots=True)
class Memory:
    """One remembered fact.

    Attributes:
        text: the fact.
        at: when the user said it; kept in UTC.
        id: the natural key, as of a turn.
        since: as of a turn.
        knows: the number of the latest forgotten thing that the author knew of (``forgetting``); not kept by the store.

    Raises:
        ValueError: ``at`` has no time zone.
    """

    text: str
    at: datetime
    id: str = field(default_factory=_new_id)
    since: int = field(default=0, compare=False)
    knows: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", _utc(self.at))
        _make_storable(self, "text", "id")


@dataclass(frozen=True, slots=True)
class Summary:
    """A note about one conversation. A user has at most one for each conversation.

    Attributes:
        conversation_id: the conversation.
        text: the note.
        at: when it was written; kept in UTC.
        since: as of a turn.

    Raises:
        ValueError: ``at`` has no time zone.
    """

    conversation_id: str
    text: str
    at: datetime
    since: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", _utc(self.at))
        _make_storable(self, "conversation_id", "text")


@dataclass(frozen=True, slots=True)
class Context:
    """What a conversation starts from, all of it read in one snapshot.

    Attributes:
        profile: the user's profile; None when there is none.
        turns: the user's last turns, oldest first, each at most ``MAX_TURN_TEXT`` characters long.
        summary: the user's latest summary; None when there is none.
        state: the user's state; None when there is none.
    """

    profile: str | None
    turns: list[Turn]
    summary: Summary | None
    state: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class PersonData:
    """All that a store keeps of one person, read in one snapshot.

    Attributes:
        profile: the profile; None when there is none.
        versions: the kept versions of the profile, the newest first.
        turns: all turns, in the order of their times.
        memories: all facts, the oldest first.
        summaries: all summaries, the oldest first.
        state: the state; None when there is none.
    """

    profile: str | None
    versions: list[ProfileVersion]
    turns: list[Turn]
    memories: list[Memory]
    summaries: list[Summary]
    state: dict[str, Any] | None


class StoreError(Exception):
    """A store could not do what it was asked. The text holds nothing a user said, and is safe to log.

    Attributes:
        operation: the method that failed, such as ``save_profile``.
        reason: the kind of failure, such as the name of an exception class or a status code.
    """

    def __init__(self, operation: str, reason: str) -> None:
        super().__init__(operation, reason)
        self.operation = operation
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.operation} failed: {self.reason}"


class PersonErased(StoreError):
    """A write was refused for good: the person was erased after its conversation had begun."""

    def __init__(self, operation: str) -> None:
        super().__init__(operation, "the person was erased")


class Store(ProfileHistory, Forgetting, Outbox, Erasures, Protocol):
    """What every store can do.

    Every method raises StoreError, and nothing else, when it fails. A write whose caller is cancelled may still be
    done; since every write may be repeated, that does no harm. A write raises PersonErased, and has no effect, if the
    person was erased after the erasure number ``since`` (0 for a writer who does not know of any).
    """

    async def context(self, user_id: str, turns: int = 12) -> Context:
        """Read profile, last ``turns`` turns (as ``recent_turns``), latest summary and state, in one request."""
        ...

    async def add_turn(self, user_id: str, turn: Turn) -> None:
        """Store a turn. One whose id this user already has changes nothing, unless it is ``skipped``."""
        ...

    async def recent_turns(self, user_id: str, limit: int = 20) -> list[Turn]:
        """Read the user's last ``limit`` turns, oldest first.

        Conversations are in the order in which the store got their last turns, whatever the workers' clocks said.
        Within one, its own times count, then the order of the writes: turns that waited for the store come in any
        order. The store looks at the 200 turns that it got last, or at ``limit`` of them where that is more.
        """
        ...

    async def expire_turns(self, days: int, limit: int) -> int:
        """Delete turns of all users that are older than ``days`` days, the oldest first.

        Ages are by the store's own clock. A turn that is dated in the future, by a clock that was wrong, counts from
        now on.

        Args:
            days: at least one.
            limit: the most turns to delete.

        Returns:
            How many were deleted; fewer than ``limit`` when none is left, or when another worker is deleting.
        """
        ...

    async def add_memory(self, user_id: str, memory: Memory) -> None:
        """Store a memory. One whose id or whose fact (``fact_key``) this user already has changes nothing."""
        ...

    async def search_memories(self, user_id: str, query: str, limit: int = 5) -> list[Memory]:
        """Find the user's memories that share a word with ``query``, best match first.

        A query without a word to search for (empty, punctuation, "what is it?") finds the newest.
        """
        ...

    async def count_memories(self, user_id: str, query: str = "") -> int:
        """Count what ``search_memories`` finds without a limit: by default, all of the user's memories."""
        ...

    async def remove_memory(self, user_id: str, text: str) -> int:
        """Delete the user's memories of a fact (``fact_key``).

        Returns:
            How many there were.
        """
        ...

    async def save_summary(self, user_id: str, summary: Summary) -> None:
        """Store a summary; it replaces an earlier one of the same conversation."""
        ...

    async def latest_summary(self, user_id: str) -> Summary | None:
        """Read the user's summary with the latest time; None when there is none.

        A time in the future (of a clock that was wrong) is the latest only if there is no other.
        """
        ...

    async def save_state(self, user_id: str, state: dict[str, Any], *, since: int = 0) -> None:
        """Replace the user's state, a JSON object.

        Raises:
            TypeError, ValueError: it is not a JSON object. Raised before the store is asked.
        """
        ...

    async def get_state(self, user_id: str) -> dict[str, Any] | None:
        """Read the user's state; None when there is none."""
        ...

    async def export_user(self, user_id: str) -> PersonData:
        """Read all that is kept of a person, in one snapshot."""
        ...

    async def move_user(self, earlier: Sequence[str], user_id: str) -> list[PendingErasure]:
        """Move all that is kept of a person under earlier ids to another id, and erase those, in one transaction.

        Args:
            earlier: the ids.
            user_id: the id to move to. Of what it has already, its own stays; lines of the profiles are joined.

        Returns:
            The erasures of those ids that had anything.
        """
        ...

    async def close(self) -> None:
        """Close every connection. May be called twice.

        Every other method of a closed store raises StoreError with the reason "closed".
        """
        ...
