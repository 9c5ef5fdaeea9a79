"""The openings in an SQLite file, inside a transaction."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable

from ..records import Opening
from .times import NOW, from_microseconds, to_microseconds


def version_of(db: sqlite3.Connection, user_id: str) -> int:
    """The version of what is kept of a user: the number of its writes, which triggers count."""
    (version,) = db.execute("SELECT coalesce(sum(version), 0) FROM outbox WHERE user_id = ?", (user_id,)).fetchone()
    return int(version)


def read(db: sqlite3.Connection, user_id: str) -> Opening | None:
    """The user's opening, whatever version it is of; None for one that cannot be decoded."""
    query = "SELECT version, plan, texts, prompt, at FROM openings WHERE user_id = ?"
    if (row := db.execute(query, (user_id,)).fetchone()) is None:
        return None
    version, plan, texts, prompt, at = row
    try:
        written = None if texts is None else json.loads(texts)
        return Opening(version, json.loads(plan), written, prompt, from_microseconds(at))
    except (ValueError, TypeError, OverflowError):  # edited by hand: it is made anew
        return None


def save(db: sqlite3.Connection, user_id: str, opening: Opening) -> None:
    """As ``Store.save_opening``."""
    if opening.plan and opening.version != version_of(db, user_id):
        return
    texts = None if opening.texts is None else json.dumps(opening.texts, ensure_ascii=False)
    plan = json.dumps(opening.plan, ensure_ascii=False)
    db.execute(
        "INSERT OR REPLACE INTO openings (user_id, version, plan, texts, prompt, at) VALUES (?, ?, ?, ?, ?, ?)",
        (user_id, opening.version, plan, texts, opening.prompt, to_microseconds(opening.at)),
    )


def claim(db: sqlite3.Connection, prompt: str, older_than: float, limit: int) -> list[str]:
    """As ``Store.claim_openings``."""
    # A conversation that goes on prepares the next opening when it ends.
    talking = f"EXISTS (SELECT 1 FROM turns t WHERE t.user_id = o.user_id AND t.at > {NOW} - :age)"
    left = f"prompt = :prompt AND texts IS NULL AND at < {NOW} - :age AND NOT {talking}"
    chosen = db.execute(
        f"SELECT user_id FROM openings o WHERE {left} ORDER BY at DESC LIMIT :limit",
        {"prompt": prompt, "age": int(older_than * 1e6), "limit": limit},
    ).fetchall()
    db.executemany("UPDATE openings SET texts = '{}' WHERE user_id = ?", chosen)
    return [str(user_id) for (user_id,) in chosen]


def forget(db: sqlite3.Connection, user_id: str) -> None:
    """Delete a user's opening: it may say what was forgotten."""
    db.execute("DELETE FROM openings WHERE user_id = ?", (user_id,))


def expire(db: sqlite3.Connection, age: int) -> None:
    """Delete the openings that were made more than ``age`` microseconds ago: they quote turns of then."""
    db.execute(f"DELETE FROM openings WHERE at < {NOW} - ?", (age,))


def keep_current(db: sqlite3.Connection, users: Iterable[str]) -> None:
    """Let the deletion of old turns, each of one of these users, make no opening outdated: it quotes none of them."""
    counted = [(count, user_id) for user_id, count in Counter(users).items()]
    db.executemany("UPDATE openings SET version = version + ? WHERE user_id = ?", counted)
