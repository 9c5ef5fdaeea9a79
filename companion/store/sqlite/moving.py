"""Moves a person to another user id in an SQLite file, inside a transaction."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from ...profile_lines import lines_of, text_of
from ..erasures import AS_OF_NOW, PendingErasure
from ..forgetting import Forgotten, Thing
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

# Turns that may become a topic: see ``Store.recent_turns``.
_MENTIONING: Final = {
    "SELECT rowid, text FROM summaries WHERE user_id = ? AND text <> ''": (
        "UPDATE summaries SET text = '' WHERE rowid = ?"
    ),
    "SELECT seq, text FROM turns WHERE user_id = ? AND NOT skipped ORDER BY seq DESC LIMIT 200": (
        "UPDATE turns SET skipped = 1 WHERE seq = ?"
    ),
}


def move(db: sqlite3.Connection, earlier: Sequence[str], user_id: str) -> list[PendingErasure]:
    """As ``Store.move_user``."""
    # An id that one of these was moved to is an earlier id as well: of another key, or before the key was removed.
    moved = [erasure.moved(db, each, AS_OF_NOW) for each in (*earlier, user_id)]
    ids = dict.fromkeys([*earlier, *(each.user_id for each in moved if each is not None)])
    with erasure.checked(db):
        return [_move(db, old, user_id) for old in ids if old != user_id and _has_any(db, old)]


def _has_any(db: sqlite3.Connection, user_id: str) -> bool:
    return any(
        db.execute(f"SELECT 1 FROM {table} WHERE user_id = ? LIMIT 1", (user_id,)).fetchone() is not None
        for table in erasure.PERSONAL_TABLES
    )


def _forget_again(db: sqlite3.Connection, forgotten: Forgotten, user_id: str) -> None:
    """Forget under one id what the person asked to forget under the other: whichever is moved first, it is gone."""
    if forgotten.tombstones:
        texts = [
            text
            for table in ("profiles", "profile_versions", "memories")
            for (text,) in db.execute(f"SELECT text FROM {table} WHERE user_id = ?", (user_id,))
        ]
        gone = {line for text in texts for line in lines_of(text) if forgotten.has(line)}
        if gone:
            forgetting.forget_here(db, user_id, [Thing(line) for line in sorted(gone)])
        for selection, change in _MENTIONING.items():
            rows = db.execute(selection, (user_id,)).fetchall()
            db.executemany(change, [(number,) for number, text in rows if forgotten.mentioned_in(text)])


def _move(db: sqlite3.Connection, old: str, new: str) -> PendingErasure:
    forgotten = {user_id: tombstones.forgotten(db, user_id) for user_id in (old, new)}
    _forget_again(db, forgotten[new], old)
    _forget_again(db, forgotten[old], new)
    theirs, known = profiles.text_of(db, old), profiles.text_of(db, new)
    for statement in _MOVED:
        db.execute(statement, {"old": old, "new": new})
    if theirs is not None and known is not None:
        text = text_of(dict.fromkeys([*lines_of(known), *lines_of(theirs)]))
        profiles.Write(new, text, to_microseconds(datetime.now(UTC)), "merge", None).swap(db, known)
    return PendingErasure(old, erasure.erase_moved(db, old, new, uuid4().hex))
