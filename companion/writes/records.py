"""Writes as values, so that they can be retried and spooled: as a call of the store, and as a line of a spool file.

Every write may be repeated. Turns, memories and summaries have natural keys, a conversation is counted once by its id,
and a profile is stored by compare-and-swap.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from ..store import DataKind, Memory, Store, StoreError, Summary, Turn
from .relationship import ConversationEnded, count_conversation


@dataclass(frozen=True, slots=True)
class Profile:
    """A new text of a profile.

    Attributes:
        text: the whole new text.
        instead_of: earlier texts that this one replaces; any of them may have been stored or not.
        at: when its author wrote it.
        made_from: the text that its author had read, empty for none: a stored text that differs from it is merged with
            this one. None: this one replaces any stored text.
    """

    text: str
    instead_of: tuple[str, ...] = ()
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    made_from: str | None = None

    def after(self, earlier: Profile) -> Profile:
        """This profile, in place of an earlier one that may or may not have been stored."""
        known = () if earlier.made_from is None else (earlier.made_from,)
        return replace(self, instead_of=(*self.instead_of, *earlier.instead_of, *known, earlier.text))


Write: TypeAlias = Turn | Memory | Summary | Profile | ConversationEnded
_MAX_SWAPS: Final = 5  # tries of a compare-and-swap, while other writers replace the profile
_TYPES: Final[dict[DataKind, type[Any]]] = {
    "turn": Turn,
    "memory": Memory,
    "summary": Summary,
    "profile": Profile,
    "state": ConversationEnded,
}


def kind_of(write: Write) -> DataKind:
    """The kind of data that a write changes."""
    return next(kind for kind, type_ in _TYPES.items() if isinstance(write, type_))


async def apply(
    write: Write,
    store: Store,
    user_id: str,
    *,
    unseen: bool = False,
    on_merged: Callable[[], None] = lambda: None,
) -> DataKind:
    """Write to the store.

    A profile is merged with the stored one, so that neither is lost, if its author has not seen the stored one: if that
    is not the text it was made from, or if ``unseen`` says so.

    Args:
        write: the write; it may have been stored already.
        store: where to.
        user_id: whose data it is.
        unseen: whether the author may not have seen the stored profile: it could not be read, or the write is a retry.
        on_merged: called when the stored profile says more than the write.

    Returns:
        The kind of data that has changed.

    Raises:
        StoreError: the store has not confirmed the write.
    """
    match write:
        case Turn():
            await store.add_turn(user_id, write)
        case Memory():
            await store.add_memory(user_id, write)
        case Summary():
            await store.save_summary(user_id, write)
        case ConversationEnded():
            await store.save_state(user_id, count_conversation(await store.get_state(user_id) or {}, write))
        case Profile() if unseen:
            await _merge_into_stored(write, store, user_id, on_merged)
        case Profile(made_from=None):
            await store.save_profile(user_id, write.text)
        case Profile():
            if not await store.swap_profile(user_id, write.text, instead_of=write.made_from or None, at=write.at):
                await _merge_into_stored(write, store, user_id, on_merged)
    return kind_of(write)


async def _merge_into_stored(write: Profile, store: Store, user_id: str, on_merged: Callable[[], None]) -> None:
    for _ in range(_MAX_SWAPS):
        stored, at = await store.dated_profile(user_id) or (None, write.at)
        if stored is None or stored in (write.text, write.made_from, *write.instead_of):
            text = write.text
        else:  # another process or conversation may have stored a newer one while this write was pending
            text = merged(write.text, stored) if at > write.at else merged(stored, write.text)
        if await store.swap_profile(user_id, text, instead_of=stored, at=max(at, write.at)):
            if text != write.text:
                on_merged()
            return
    raise StoreError("swap_profile", "other writers replaced it each time")


def merged(older: str, newer: str) -> str:
    """Merge two profiles line by line, so that the result says what both say.

    A newer line "Label: value" replaces the older line of its label, if each profile has one line of that label.

    Args:
        older: the text that was written first.
        newer: the text that was written last.

    Returns:
        The older lines in their order, then the newer ones that are not among them.
    """
    old, new = (list(dict.fromkeys(filter(None, map(str.strip, each.splitlines())))) for each in (older, newer))
    single = {label for label, count in Counter(map(_label, old)).items() if count == 1}
    single &= {label for label, count in Counter(map(_label, new)).items() if count == 1}
    replacing = {label: line for line in new if (label := _label(line)) in single}
    lines = [replacing.get(_label(line), line) for line in old]
    return "\n".join(dict.fromkeys([*lines, *new]))


def _label(line: str) -> str:
    label, colon, _ = line.partition(":")
    return label.strip().casefold() if colon else line


def to_line(user_id: str, write: Write) -> str:
    """A write as one line of JSON, without the line's end."""
    return json.dumps({"user_id": user_id, "kind": kind_of(write)} | asdict(write) | {"at": write.at.isoformat()})


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
        optional = {"made_from"} if fields.get("made_from") is None else set()
        texts = [value for name, value in fields.items() if name not in {"at", "instead_of"} | optional]
        if not all(isinstance(text, str) for text in (user_id, *texts, *fields.get("instead_of", ()))):
            raise ValueError
        return user_id, type_(**fields)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
        raise ValueError("not a line of a spool file") from None
