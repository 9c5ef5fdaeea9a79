"""Forgetting one thing in an SQLite file, inside a transaction."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime

from ...profile_lines import lines_of, text_of
from ..erasures import AS_OF_NOW
from ..fact_key import fact_key
from ..forgetting import Removed, Thing
from ..word_stems import mentions
from . import erasure, openings, profiles, tombstones
from .times import to_microseconds


def forget(db: sqlite3.Connection, user_id: str, things: Sequence[Thing]) -> Removed:
    """As ``Forgetting.forget``."""
    moved = erasure.moved(db, user_id, AS_OF_NOW)
    there = Removed([], []) if moved is None or moved.user_id == user_id else forget_here(db, moved.user_id, things)
    here = forget_here(db, user_id, things)
    return Removed([*there.lines, *here.lines], [*there.facts, *here.facts])


def forget_here(db: sqlite3.Connection, user_id: str, things: Sequence[Thing]) -> Removed:
    """As ``forget``, under this id alone."""
    keys = {fact_key(thing.text) for thing in things}
    profile = profiles.text_of(db, user_id) or ""
    lines = [line for line in lines_of(profile) if fact_key(line) in keys]
    if lines:
        now = to_microseconds(datetime.now(UTC))
        profiles.Write(user_id, _without(profile, keys), now, "tool", None).replace(db)
    for seq, text in db.execute("SELECT seq, text FROM profile_versions WHERE user_id = ?", (user_id,)).fetchall():
        if (left := _without(text, keys)) != text:
            db.execute("UPDATE profile_versions SET text = ? WHERE seq = ?", (left, seq))
    facts = []
    for seq, text in db.execute("SELECT seq, text FROM memories WHERE user_id = ?", (user_id,)).fetchall():
        # It may be several lines of a profile that had no room for them.
        facts += [line for line in lines_of(text) if fact_key(line) in keys]
        if not (left := _without(text, keys)) and text:
            db.execute("DELETE FROM memories WHERE seq = ?", (seq,))
        elif left != text:
            db.execute("UPDATE memories SET text = ? WHERE seq = ?", (left, seq))
    words = [thing.words for thing in things if thing.words]
    query = "SELECT rowid, text FROM summaries WHERE user_id = ?"
    db.executemany("UPDATE summaries SET text = '' WHERE rowid = ?", _mentioning(db, query, user_id, words))
    query = "SELECT seq, text FROM turns WHERE user_id = ? AND NOT skipped"
    db.executemany("UPDATE turns SET skipped = 1 WHERE seq = ?", _mentioning(db, query, user_id, words))
    openings.forget(db, user_id)
    tombstones.add(db, user_id, things)
    return Removed(lines, facts)


def _without(text: str, keys: set[str]) -> str:
    """A text without the lines that have one of these keys; the text as it is, if it has none of them."""
    lines = lines_of(text)
    left = [line for line in lines if fact_key(line) not in keys]
    return text if left == lines else text_of(left)


def _mentioning(db: sqlite3.Connection, query: str, user_id: str, words: Sequence[Sequence[str]]) -> list[tuple[int]]:
    """The numbers of the rows whose text mentions one of the things."""
    if not words:
        return []
    return [(number,) for number, text in db.execute(query, (user_id,)) if any(mentions(text, each) for each in words)]
