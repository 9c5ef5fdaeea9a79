"""The tombstones of forgotten things in an SQLite file."""

import json
import sqlite3
from collections.abc import Iterable, Sequence

from ..base import StoreError
from ..fact_key import fact_key
from ..forgetting import MORE_FORGOTTEN, Forgotten, Thing, Tombstone, key_hash, new_salt, word_hashes


def add(db: sqlite3.Connection, user_id: str, things: Sequence[Thing]) -> None:
    """Record that things are forgotten."""
    said_again(db, user_id, [one.text for one in things])  # an earlier tombstone of the same thing
    salt = new_salt()
    db.executemany(
        "INSERT OR REPLACE INTO forgotten (user_id, key, words) VALUES (?, ?, ?)",
        [(user_id, key_hash(salt, fact_key(one.text)), json.dumps(word_hashes(salt, one.words))) for one in things],
    )


def forgotten(db: sqlite3.Connection, user_id: str) -> Forgotten:
    """As ``Forgetting.forgotten``."""
    rows = db.execute("SELECT key, words, number FROM forgotten WHERE user_id = ?", (user_id,))
    return Forgotten([Tombstone(key, json.loads(words), number) for key, words, number in rows])


def refuse_forgotten(db: sqlite3.Connection, operation: str, user_id: str, known: int) -> None:
    """Raise StoreError, inside the transaction of a write, if the user had something forgotten after ``known``."""
    query = "SELECT 1 FROM forgotten WHERE user_id = ? AND number > ? LIMIT 1"
    if db.execute(query, (user_id, known)).fetchone() is not None:
        raise StoreError(operation, MORE_FORGOTTEN)


def said_again(db: sqlite3.Connection, user_id: str, texts: Iterable[str]) -> None:
    """Note that lines or facts were stored: what a person says again is no longer forgotten."""
    again = forgotten(db, user_id).among(texts).tombstones
    db.executemany("DELETE FROM forgotten WHERE number = ?", [(stone.number,) for stone in again])
