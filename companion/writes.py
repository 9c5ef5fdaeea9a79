"""What may have to wait until the store takes it: as a value, as a call of the store, as a line of a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import uuid4

from .store import Memory, Store, Summary, Turn, What


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile text that is to replace another one.

    Attributes:
        text: the whole new text.
        instead_of: earlier texts that it is to replace, whenever they may have been stored.
        at: when it was written.
        id: names the memory that it becomes where it may not replace what is there.
    """

    text: str
    instead_of: tuple[str, ...] = ()
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: str = field(default_factory=lambda: uuid4().hex)

    def after(self, earlier: Profile) -> Profile:
        """This one, in place of an earlier one that may or may not have been stored."""
        return replace(self, instead_of=(*self.instead_of, *earlier.instead_of, earlier.text))


Write: TypeAlias = Turn | Memory | Summary | Profile
_KINDS: Final[dict[What, type[Any]]] = {"turn": Turn, "memory": Memory, "summary": Summary, "profile": Profile}


def kind_of(write: Write) -> What:
    """What kind of data it is."""
    return next(name for name, kind in _KINDS.items() if isinstance(write, kind))


async def apply(write: Write, store: Store, user_id: str, *, late: bool = False) -> What:
    """Write it, and say what has changed. May be repeated. Raises StoreError.

    Args:
        write: what to write.
        store: where.
        user_id: whose it is.
        late: others may have written meanwhile. A profile does not replace a newer one of theirs: it is kept as a
            memory then, so that neither is lost.
    """
    match write:
        case Turn():
            await store.add_turn(user_id, write)
        case Memory():
            await store.add_memory(user_id, write)
        case Summary():
            await store.save_summary(user_id, write)
        case Profile():
            if not late:
                await store.save_profile(user_id, write.text)
            elif not await store.replace_profile(
                user_id, write.text, at=write.at, instead_of=(write.text, *write.instead_of)
            ):
                return await apply(Memory(text=write.text, at=write.at, id=write.id), store, user_id)
    return kind_of(write)


def to_line(user_id: str, write: Write) -> str:
    """One line of JSON, without its end."""
    return json.dumps({"user_id": user_id, "kind": kind_of(write)} | asdict(write) | {"at": write.at.isoformat()})


def from_line(line: str) -> tuple[str, Write]:
    """The user id, and what was to be written. Raises ValueError for a line that is none."""
    try:
        fields = json.loads(line)
        kind, user_id = _KINDS[fields.pop("kind")], fields.pop("user_id")
        fields["at"] = datetime.fromisoformat(fields["at"])
        if "instead_of" in fields:
            fields["instead_of"] = tuple(fields["instead_of"])
        texts = [value for name, value in fields.items() if name not in ("at", "instead_of")]
        if not all(isinstance(text, str) for text in (user_id, *texts, *fields.get("instead_of", ()))):
            raise ValueError
        return user_id, kind(**fields)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise ValueError("not a line of unstored writes") from None
