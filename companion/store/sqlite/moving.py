"""Moves a person to another user id in an SQLite file, inside a transaction."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from ...profile_lines import lines_of, text_of
from ..erasures import PendingErasure
from ..forgetting import Thing
from . import erasure, forgetting, profiles, tombstones
from .times import to_microseconds

# Of what both ids have, that of the new one stays: turns and facts by their ids, one summary for each conversation, one
# state. The hashes of forgotten things hold no id. An opening is made anew.
_MOVED: Final = (
    "UPDATE OR IGNORE profiles SET user_id = :new WHERE user_id = :old",
    "UPDATE OR IGNORE profile_versions SET user_id = :new WHERE user_id = :old",
    "UPDATE OR IGNORE turns SET user_id = :new WHERE user_id = :old",
    "UPDATE OR IGNORE memories SET user_id = :new WHERE user_id = :old AND NOT EXISTS ("
    "SELECT 1 FROM memories AS known WHERE known.user_id = :new AND fact_key(known.text) = fact_key(memories.text))",
    "UPDATE OR IGNORE summaries SET user_id = :new WHERE user_id = :old",
    "UPDATE OR IGNORE states SET user_id = :new WHERE user_id = :old",
    "UPDATE OR IGNORE removed_memories SET user_id = :new WHERE user_id = :old",
    "UPDATE OR IGNORE forgotten SET user_id = :new WHERE user_id = :old",
)


def move(db: sqlite3.Connection, earlier: Sequence[str], user_id: str) -> list[PendingErasure]:
    """As ``Store.move_user``."""
    with erasure.checked(db):
        return [_move(db, old, user_id) for old in earlier if old != user_id and _has_any(db, old)]


def _has_any(db: sqlite3.Connection, user_id: str) -> bool:
    return any(
        db.execute(f"SELECT 1 FROM {table} WHERE user_id = ? LIMIT 1", (user_id,)).fetchone() is not None
        for table in erasure.PERSONAL_TABLES
    )


def _forget_again(db: sqlite3.Connection, old: str, new: str) -> None:
    """What the person asked to forget under the new id does not come back with the old one."""
    if (forgotten := tombstones.forgotten(db, new)).tombstones:
        texts = [
            text
            for table in ("profiles", "profile_versions", "memories")
            for (text,) in db.execute(f"SELECT text FROM {table} WHERE user_id = ?", (old,))
        ]
        gone = {line for text in texts for line in lines_of(text) if forgotten.has(line)}
        if gone:
            forgetting.forget_here(db, old, [Thing(line) for line in sorted(gone)])


def _move(db: sqlite3.Connection, old: str, new: str) -> PendingErasure:
    _forget_again(db, old, new)
    theirs, known = profiles.text_of(db, old), profiles.text_of(db, new)
    for statement in _MOVED:
        db.execute(statement, {"old": old, "new": new})
    if theirs is not None and known is not None:
        text = text_of(dict.fromkeys([*lines_of(known), *lines_of(theirs)]))
        profiles.Write(new, text, to_microseconds(datetime.now(UTC)), "merge", None).swap(db, known)
    return PendingErasure(old, erasure.erase_moved(db, old, new, uuid4().hex))
