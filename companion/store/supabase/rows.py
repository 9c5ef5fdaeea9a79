"""Decodes Supabase's answers. Every function raises UnexpectedAnswer for an answer of another form.

Functions that take ``row`` decode lists; the others decode one row, or a plain value.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, TypeVar, cast

from ..erasures import Moved, PendingErasure
from ..forgetting import Removed, Tombstone
from ..outbox import DataKind, OutboxRow
from ..profile_history import ProfileAuthor, ProfileVersion, StoredProfile
from ..records import Context, Memory, Opening, PersonData, Summary, Turn
from .client import UnexpectedAnswer

_T = TypeVar("_T")
_Row = dict[str, Any]


def decoded(data: object, decode: Callable[[object], _T]) -> _T:
    """Decode an answer, with UnexpectedAnswer for values that the records refuse, too."""
    try:
        return decode(data)
    except ValueError:
        raise UnexpectedAnswer from None


def all_of(row: Callable[[object], _T]) -> Callable[[object], list[_T]]:
    """A decoder of lists of what ``row`` decodes."""
    return lambda data: [row(one) for one in _rows(data)]


def first_of(row: Callable[[object], _T]) -> Callable[[object], _T | None]:
    """A decoder of lists to what ``row`` makes of the first element; None for an empty list."""
    return lambda data: next((row(one) for one in _rows(data)), None)


def nothing(data: object) -> None:
    """Decode the answer to a write."""
    if _rows(data):
        raise UnexpectedAnswer


def count(data: object) -> int:
    if not isinstance(data, int):
        raise UnexpectedAnswer
    return data


def yes_or_no(data: object) -> bool:
    if not isinstance(data, bool):
        raise UnexpectedAnswer
    return data


def profile(data: object) -> str:
    return _string(_row(data), "text")


def profile_for_write(data: object) -> StoredProfile:
    row = _row(data)
    text = None if row.get("text", "") is None else _string(row, "text")
    return StoredProfile(text, yes_or_no(row.get("has_write")))


def profile_version(data: object) -> ProfileVersion:
    row = _row(data)
    at = datetime.fromisoformat(_string(row, "at"))
    # ProfileVersion refuses any other author.
    author = cast(ProfileAuthor, _string(row, "author"))
    return ProfileVersion(count(row.get("version")), _string(row, "text"), at, author)


def state(data: object) -> _Row:
    return _row(_row(data).get("state"))


def turn(data: object) -> Turn:
    row = _row(data)
    return Turn(
        role=cast(Literal["user", "assistant"], _string(row, "role")),  # Turn refuses anything else
        text=_string(row, "text"),
        at=datetime.fromisoformat(_string(row, "at")),
        conversation_id=_string(row, "conversation_id"),
        id=_string(row, "id"),
    )


def memory(data: object) -> Memory:
    row = _row(data)
    return Memory(_string(row, "text"), datetime.fromisoformat(_string(row, "at")), _string(row, "id"))


def summary(data: object) -> Summary:
    row = _row(data)
    at = datetime.fromisoformat(_string(row, "at"))
    return Summary(_string(row, "conversation_id"), _string(row, "text"), at)


def removed(data: object) -> Removed:
    row = _row(data)
    return Removed(_strings(row.get("lines")), _strings(row.get("facts")))


def tombstone(data: object) -> Tombstone:
    row = _row(data)
    return Tombstone(_string(row, "key"), _strings(row.get("words")), count(row.get("number")))


def outbox_row(data: object) -> OutboxRow:
    row = _row(data)
    # OutboxRow refuses any other kind of data.
    return OutboxRow(_string(row, "user_id"), cast(DataKind, _string(row, "what")), count(row.get("version")))


def opening(data: object) -> Opening | None:
    """None for one that was edited by hand and cannot be decoded: it is made anew."""
    if data is None:
        return None
    row = _row(data)
    try:
        at = datetime.fromisoformat(_string(row, "at"))
        return Opening(count(row.get("version")), _row(row.get("plan")), row.get("texts"), _string(row, "prompt"), at)
    except (ValueError, UnexpectedAnswer):
        return None


def user_ids(data: object) -> list[str]:
    return _strings(data)


def context(data: object) -> Context:
    row = _row(data)
    if not row.keys() >= {"profile", "turns", "summary", "state"}:
        raise UnexpectedAnswer
    skipped = _rows(row.get("skipped"))
    return Context(
        profile=None if row["profile"] is None else _string(row, "profile"),
        turns=[replace(each, skipped=each.id in skipped) for each in all_of(turn)(row["turns"])],
        summary=None if row["summary"] is None else summary(row["summary"]),
        state=None if row["state"] is None else _row(row["state"]),
        version=count(row.get("version")),
        opening=opening(row.get("opening")),
    )


def person_data(data: object) -> PersonData:
    row = _row(data)
    return PersonData(
        profile=None if row.get("profile") is None else _string(row, "profile"),
        versions=all_of(profile_version)(row.get("versions")),
        turns=all_of(turn)(row.get("turns")),
        memories=all_of(memory)(row.get("memories")),
        summaries=all_of(summary)(row.get("summaries")),
        state=None if row.get("state") is None else _row(row["state"]),
        opening=opening(row.get("opening")),
    )


def pending_erasure(data: object) -> PendingErasure:
    row = _row(data)
    return PendingErasure(_string(row, "user_id"), count(row.get("number")))


def moved(data: object) -> Moved:
    row = _row(data)
    return Moved(_string(row, "user_id"), count(row.get("number")))


def _rows(data: object) -> list[object]:
    # Text that is not JSON (a proxy's page, an answer cut short) arrives here as a str.
    if not isinstance(data, list):
        raise UnexpectedAnswer
    return data


def _row(data: object) -> _Row:
    if not isinstance(data, dict):
        raise UnexpectedAnswer
    return data


def _strings(data: object) -> list[str]:
    if not isinstance(data, list) or not all(isinstance(one, str) for one in data):
        raise UnexpectedAnswer
    return data


def _string(row: _Row, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise UnexpectedAnswer
    return value
