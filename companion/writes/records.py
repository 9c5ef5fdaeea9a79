"""What may have to wait until the store takes it: as a value, as a call of the store, as a line of a file."""

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
    """A profile text that is to replace another one.

    Attributes:
        text: the whole new text.
        instead_of: earlier texts that it is to replace, whenever they may have been stored.
        at: when it was written.
        made_from: the text that whoever wrote it knew, empty for none: another one is merged with it. None: whatever is
            there is replaced.
    """

    text: str
    instead_of: tuple[str, ...] = ()
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    made_from: str | None = None

    def after(self, earlier: Profile) -> Profile:
        """This one, in place of an earlier one that may or may not have been stored."""
        known = () if earlier.made_from is None else (earlier.made_from,)
        return replace(self, instead_of=(*self.instead_of, *earlier.instead_of, *known, earlier.text))


Write: TypeAlias = Turn | Memory | Summary | Profile | ConversationEnded
_TRIES: Final = 5
_KINDS: Final[dict[DataKind, type[Any]]] = {
    "turn": Turn,
    "memory": Memory,
    "summary": Summary,
    "profile": Profile,
    "state": ConversationEnded,
}


def kind_of(write: Write) -> DataKind:
    """What kind of data it is."""
    return next(name for name, kind in _KINDS.items() if isinstance(write, kind))


async def apply(
    write: Write,
    store: Store,
    user_id: str,
    *,
    late: bool = False,
    on_merged: Callable[[], None] = lambda: None,
) -> DataKind:
    """Write it, and say what has changed. May be repeated. Raises StoreError.

    A profile is merged with what is there, so that neither is lost, where whoever wrote it does not know that: it is
    not the text that this one was made from, or it may be unknown.

    Args:
        write: what to write.
        store: where.
        user_id: whose it is.
        late: what is in the store may be unknown to whoever wrote it: the store could not be read, or could not be
            written for a while.
        on_merged: called when a profile says more by now than was written.
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
        case Profile() if late:
            await _save_late(write, store, user_id, on_merged)
        case Profile(made_from=None):
            await store.save_profile(user_id, write.text)
        case Profile():
            if not await store.swap_profile(user_id, write.text, instead_of=write.made_from or None, at=write.at):
                await _save_late(write, store, user_id, on_merged)
    return kind_of(write)


async def _save_late(write: Profile, store: Store, user_id: str, on_merged: Callable[[], None]) -> None:
    for _ in range(_TRIES):
        found = await store.dated_profile(user_id)
        there, at = found or (None, write.at)
        if there is None or there in (write.text, write.made_from, *write.instead_of):
            text = write.text
        else:  # another process, or another conversation, may have stored a newer one before this
            text = merged(write.text, there) if at > write.at else merged(there, write.text)
        if await store.swap_profile(user_id, text, instead_of=there, at=max(at, write.at)):
            if text != write.text:
                on_merged()
            return
    raise StoreError("swap_profile", "always another one")


def merged(older: str, newer: str) -> str:
    """A profile that says what both say, line by line.

    A newer line "Label: value" takes the place of an older one with its label, if it is the only one in both.
    """
    old, new = (list(dict.fromkeys(filter(None, map(str.strip, each.splitlines())))) for each in (older, newer))
    single = {label for label, count in Counter(map(_label, old)).items() if count == 1}
    single &= {label for label, count in Counter(map(_label, new)).items() if count == 1}
    instead = {label: line for line in new if (label := _label(line)) in single}
    lines = [instead.get(_label(line), line) for line in old]
    return "\n".join(dict.fromkeys([*lines, *new]))


def _label(line: str) -> str:
    label, colon, _ = line.partition(":")
    return label.strip().casefold() if colon else line


def to_line(user_id: str, write: Write) -> str:
    """One line of JSON, without its end."""
    return json.dumps({"user_id": user_id, "kind": kind_of(write)} | asdict(write) | {"at": write.at.isoformat()})


def from_line(line: str) -> tuple[str, Write]:
    """The user id, and what was to be written. Raises ValueError for a line that is none."""
    try:
        fields = json.loads(line)
        kind, user_id = _KINDS[fields.pop("kind")], fields.pop("user_id")
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
        return user_id, kind(**fields)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
        raise ValueError("not a line of unstored writes") from None
