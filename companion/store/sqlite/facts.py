"""The facts in an SQLite file. The connection has the function ``fact_key`` (``thread``)."""

import sqlite3

from ..search_terms import search_words
from .tombstones import said_again

# One statement, under the write lock from its beginning: no other process can add the same fact in between.
_ADD = (
    "INSERT INTO memories (user_id, id, text, at) SELECT ?1, ?2, ?3, ?4"
    " WHERE NOT EXISTS (SELECT 1 FROM memories WHERE user_id = ?1 AND fact_key(text) = fact_key(?3))"
    " ON CONFLICT (user_id, id) DO NOTHING"
)
REMOVE = "DELETE FROM memories WHERE user_id = ? AND fact_key(text) = fact_key(?)"


def add(db: sqlite3.Connection, user_id: str, id: str, text: str, at: int) -> None:
    """Store a fact, unless the user has it."""
    if db.execute(_ADD, (user_id, id, text, at)).rowcount > 0:
        said_again(db, user_id, [text])


def search(db: sqlite3.Connection, user_id: str, query: str, limit: int) -> list[tuple[str, int, str]]:
    """The best matches as text, time and id; without a word to search for, the newest facts."""
    if words := _match(query):
        return db.execute(
            "SELECT memories.text, memories.at, memories.id FROM memories_text"
            " JOIN memories ON memories.seq = memories_text.rowid"
            " WHERE memories_text MATCH ? AND memories.user_id = ?"
            " ORDER BY bm25(memories_text), memories.at DESC, memories.seq DESC LIMIT ?",
            (words, user_id, max(limit, 0)),
        ).fetchall()
    return db.execute(
        "SELECT text, at, id FROM memories WHERE user_id = ? ORDER BY at DESC, seq DESC LIMIT ?",
        (user_id, max(limit, 0)),
    ).fetchall()


def count(db: sqlite3.Connection, user_id: str, query: str) -> int:
    """The number of facts that a search without a limit finds."""
    if words := _match(query):
        statement = (
            "SELECT count(*) FROM memories_text JOIN memories ON memories.seq = memories_text.rowid"
            " WHERE memories_text MATCH ? AND memories.user_id = ?"
        )
        return int(db.execute(statement, (words, user_id)).fetchone()[0])
    return int(db.execute("SELECT count(*) FROM memories WHERE user_id = ?", (user_id,)).fetchone()[0])


def _match(query: str) -> str:
    # Quoted, so that FTS5 takes AND, NEAR, * and ^ as words, not as operators.
    return " OR ".join(f'"{word}"' for word in search_words(query))
