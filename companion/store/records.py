"""The records of a store: turns, facts, summaries, openings; and what is read together: a context, all of a person."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import uuid4

from ..text import storable, storable_json
from .profile_history import ProfileVersion

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
        knows: as of a memory.

    Raises:
        ValueError: ``at`` has no time zone.
    """

    conversation_id: str
    text: str
    at: datetime
    since: int = field(default=0, compare=False)
    knows: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", _utc(self.at))
        _make_storable(self, "conversation_id", "text")


@dataclass(frozen=True, slots=True)
class Opening:
    """How the next conversation with a person opens, as far as that is prepared. A user has at most one.

    It follows from other data, so its writes are not counted in the outbox, and it is neither moved nor spooled.

    Attributes:
        version: the version of what it was made from (``Context.version``). A store does not keep an opening of another
            version than the current one, unless it has no plan.
        plan: the decision, a JSON object; empty: it is still to be made.
        texts: what is said, by the kind of opening; None: it is still to be written.
        prompt: the hash of the prompt that writes it; empty where nothing is written.
        at: when it was made; kept in UTC.
        since: as of a turn.

    Raises:
        ValueError: ``at`` has no time zone, or plan or texts are not what they have to be.
    """

    version: int
    plan: dict[str, Any]
    texts: dict[str, str] | None
    prompt: str
    at: datetime
    since: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", _utc(self.at))
        texts = {} if self.texts is None else self.texts
        if not (isinstance(self.plan, dict) and isinstance(texts, dict)):
            raise ValueError("a plan and texts are JSON objects")
        if not all(isinstance(text, str) for text in (self.prompt, *texts.values())):
            raise ValueError("a prompt and texts are strings")
        object.__setattr__(self, "plan", storable_json(self.plan))
        object.__setattr__(self, "texts", None if self.texts is None else storable_json(self.texts))


@dataclass(frozen=True, slots=True)
class Context:
    """What a conversation starts from, all of it read in one snapshot.

    Attributes:
        profile: the user's profile; None when there is none.
        turns: the user's last turns, oldest first, each at most ``MAX_TURN_TEXT`` characters long.
        summary: the user's latest summary; None when there is none.
        state: the user's state; None when there is none.
        version: grows with every change of anything that is kept of the user, but the opening; 0 for a stranger.
        opening: how to open; None when there is none. It holds if it is of this version.
    """

    profile: str | None
    turns: list[Turn]
    summary: Summary | None
    state: dict[str, Any] | None
    version: int = field(default=0, compare=False)
    opening: Opening | None = None


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
        opening: how the next conversation opens; None when nothing is prepared.
    """

    profile: str | None
    versions: list[ProfileVersion]
    turns: list[Turn]
    memories: list[Memory]
    summaries: list[Summary]
    state: dict[str, Any] | None
    opening: Opening | None = None
