"""Writes as values, so that they can be retried and spooled: as a call of the store, and as a line of a spool file.

Every write may be repeated. Turns, memories and summaries have natural keys, a conversation is counted once by its id,
and the write of a profile is known by its id in the store's history.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from ..store import DataKind, Forgotten, Memory, PersonErased, Store, Summary, Turn, knowing
from .profile_write import Profile, StoredText, store_profile
from .relationship import ConversationEnded, count_conversation

Write: TypeAlias = Turn | Memory | Summary | Profile | ConversationEnded
_TYPES: Final[dict[DataKind, type[Any]]] = {
    "turn": Turn,
    "memory": Memory,
    "summary": Summary,
    "profile": Profile,
    "state": ConversationEnded,
}

_LATER_FIELDS: Final = {
    "since": 0,
    "knows": 0,
    "skipped": False,
    "language": "",
}  # in a line where they are not neutral


def kind_of(write: Write) -> DataKind:
    """The kind of data that a write changes."""
    return next(kind for kind, type_ in _TYPES.items() if isinstance(write, type_))


async def apply(write: Write, store: Store, user_id: str, *, late: bool = False) -> StoredText | None:
    """Write to the store.

    Args:
        write: the write; it may have been stored already.
        store: where to.
        user_id: whose data it is.
        late: whether the write had to wait for the store, so that others may have written since.

    Returns:
        For a profile, what is stored now.

    Raises:
        StoreError: the store has not confirmed the write.
    """
    # A summary always: its conversation may have been long, and another one asked to forget something meanwhile.
    if isinstance(write, Profile | ConversationEnded) or not (late or isinstance(write, Summary)):
        return await _apply(write, store, user_id, Forgotten(), late)
    forgotten = await store.forgotten(user_id)
    with knowing(forgotten):
        return await _apply(write, store, user_id, forgotten, late)


async def apply_or_follow(write: Write, store: Store, user_id: str, *, late: bool) -> tuple[str, StoredText | None]:
    """As ``apply``; of a person who was moved to another id meanwhile, it is written there, as a late write.

    Returns:
        The id it was written under, and what ``apply`` returns.

    Raises:
        PersonErased: the person was erased.
        StoreError: the store has not confirmed the write.
    """
    while True:
        try:
            return user_id, await apply(write, store, user_id, late=late)
        except PersonErased:
            moved = await store.moved(user_id, write.since)
            if moved is None:
                raise
        user_id, write, late = moved.user_id, replace(write, since=moved.number), True


async def _apply(write: Write, store: Store, user_id: str, forgotten: Forgotten, late: bool) -> StoredText | None:
    match write:
        case Turn():
            mentions = forgotten.mentioned_in(write.text)
            await store.add_turn(user_id, replace(write, skipped=True) if mentions else write)
        case Memory():
            # It may be several lines of a profile that had no room for them.
            if (text := forgotten.after(write.knows).left_of(write.text)) or not write.text:
                await store.add_memory(user_id, replace(write, text=text))
        case Summary() if forgotten.after(write.knows).mentioned_in(write.text):
            pass  # a conversation without a note
        case Summary():
            await store.save_summary(user_id, write)
        case ConversationEnded():
            state = count_conversation(await store.get_state(user_id) or {}, write)
            await store.save_state(user_id, state, since=write.since)
        case Profile():
            return await store_profile(write, store, user_id, late=late)
    return None


def to_line(user_id: str, write: Write) -> str:
    """A write as one line of JSON, without the line's end."""
    fields = asdict(write) | {"at": write.at.isoformat()}
    # A worker of an earlier version refuses a line with a field that it does not know.
    fields.pop("author", None)
    for name in _LATER_FIELDS:
        if not fields.get(name):
            fields.pop(name, None)
    return json.dumps({"user_id": user_id, "kind": kind_of(write)} | fields)


def from_line(line: str) -> tuple[str, Write]:
    """Parse a line that ``to_line`` made.

    Args:
        line: the line.

    Returns:
        The user id, and the write.

    Raises:
        ValueError: it is not such a line.
    """
    try:
        fields = json.loads(line)
        type_, user_id = _TYPES[fields.pop("kind")], fields.pop("user_id")
        fields["at"] = datetime.fromisoformat(fields["at"])
        if fields["at"].utcoffset() is None:
            raise ValueError
        fields["at"].astimezone(UTC)  # OverflowError where no store could hold it
        if "instead_of" in fields:
            fields["instead_of"] = tuple(fields["instead_of"])
        if type_ is Profile:
            fields["author"] = "code" if fields.get("made_from") is None else "tool"
        optional = {"made_from"} if fields.get("made_from") is None else set()
        if not all(type(fields.get(name, neutral)) is type(neutral) for name, neutral in _LATER_FIELDS.items()):
            raise ValueError
        others = {"at", "instead_of"} | _LATER_FIELDS.keys() | optional
        texts = [value for name, value in fields.items() if name not in others]
        if not all(isinstance(text, str) for text in (user_id, *texts, *fields.get("instead_of", ()))):
            raise ValueError
        return user_id, type_(**fields)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
        raise ValueError("not a line of a spool file") from None
