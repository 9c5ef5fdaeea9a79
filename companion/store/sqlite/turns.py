"""Turns in SQLite: the last ones of a user, and the deletion of old ones."""

import sqlite3

from ..records import Turn
from . import openings
from .times import NOW, from_microseconds

# Conversations in the order of their last stored turn; within one, its own times count.
_LAST_TURNS = """
WITH latest AS (
    SELECT seq, conversation_id, at FROM turns WHERE user_id = :user_id ORDER BY seq DESC LIMIT max(:count, 200)
), chosen AS (
    SELECT seq, at, max(seq) OVER (PARTITION BY conversation_id) AS place FROM latest
    ORDER BY place DESC, at DESC, seq DESC LIMIT :count
)
SELECT turns.role, substr(turns.text, 1, :chars), chosen.at, turns.conversation_id, turns.id, turns.skipped
FROM chosen JOIN turns USING (seq) ORDER BY chosen.place, chosen.at, seq
"""
_WHOLE = 2**31 - 1  # characters: more than a text can have


def last_turns(db: sqlite3.Connection, user_id: str, count: int, chars: int = _WHOLE) -> list[Turn]:
    """The last ``count`` turns, of each text the first ``chars`` characters."""
    found = db.execute(_LAST_TURNS, {"user_id": user_id, "count": max(count, 0), "chars": chars})
    return [
        Turn(role, text, from_microseconds(at), conversation_id, id, bool(skipped))
        for role, text, at, conversation_id, id, skipped in found
    ]


def expire_turns(db: sqlite3.Connection, days: int, limit: int) -> int:
    """As ``Store.expire_turns``."""
    if days < 1:
        raise ValueError("turns are kept for at least one day")
    day = 86_400_000_000  # microseconds
    db.execute(f"UPDATE turns SET at = {NOW} WHERE at > {NOW} + {day}")
    openings.expire(db, days * day)
    query = f"SELECT seq, user_id FROM turns WHERE at < {NOW} - ? ORDER BY at LIMIT ?"
    old = db.execute(query, (days * day, limit)).fetchall()
    db.executemany("DELETE FROM turns WHERE seq = ?", [(seq,) for seq, _ in old])
    openings.keep_current(db, [user_id for _, user_id in old])
    return len(old)
