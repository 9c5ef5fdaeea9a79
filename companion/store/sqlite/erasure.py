"""Erasure of a person in an SQLite file.

FTS5's ``optimize`` rewrites its index without the deleted words, ``VACUUM`` the file without what is deleted, and the
checkpoint empties the write-ahead log: then no byte of what was said is in the database, its log or its shared memory.
"""

import hmac
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ..base import PersonErased
from ..erasures import AS_OF_NOW, Moved, PendingErasure
from .times import NOW

PERSONAL_TABLES: Final = (
    "profiles",
    "turns",
    "memories",
    "summaries",
    "states",
    "openings",
    "profile_versions",
    "removed_memories",
    "forgotten",
    "outbox",
)
"""Every table with a column ``user_id``, but the tombstones. Those that triggers write come after those they watch."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS erasures (
    person TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    request TEXT NOT NULL,
    user_id TEXT,
    at INTEGER NOT NULL,
    moved_to TEXT,
    erased INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS erasures_by_number ON erasures (number);
CREATE TABLE IF NOT EXISTS erasure_key (
    single INTEGER PRIMARY KEY CHECK (single = 1),
    key BLOB NOT NULL,
    checked INTEGER NOT NULL DEFAULT 0
);
INSERT OR IGNORE INTO erasure_key (single, key) VALUES (1, randomblob(32));
"""
_GUARDED: Final = ("profiles", "turns", "memories", "summaries", "states", "openings")
SCHEMA: Final = _TABLES + "".join(
    f"""
CREATE TRIGGER IF NOT EXISTS {table}_guarded BEFORE INSERT ON {table}
WHEN EXISTS (SELECT 1 FROM erasures) AND NOT (SELECT checked FROM erasure_key) BEGIN
    SELECT RAISE(ABORT, 'persons were erased: within a transaction, set erasure_key.checked to 1, insert, set it to 0');
END;
"""
    for table in _GUARDED
)
"""The tombstones and the key of their hashes; and what stops writers that do not look at tombstones.

The tombstone of an id that was moved says where to, and the number of its last erasure.

A worker of an earlier version, which may share the file while it is being replaced, does not know of them: once a
person was erased, what it writes waits in its spool for a worker of this version.
"""


def erase(db: sqlite3.Connection, user_id: str, request: str) -> int:
    """Delete everything of a person, inside a transaction; the number of the erasure."""
    person = _person(db, user_id)
    done = db.execute("SELECT number FROM erasures WHERE person = ? AND request = ?", (person, request)).fetchone()
    if done is not None:
        return int(done[0])
    there = moved(db, user_id, AS_OF_NOW)
    if there is not None and there.user_id != user_id:
        erase(db, there.user_id, f"{request} {person}")
    for table in PERSONAL_TABLES:
        db.execute(f"DELETE FROM {table} WHERE user_id = ?", (user_id,))
    db.execute("INSERT INTO memories_text (memories_text) VALUES ('optimize')")
    db.execute("UPDATE erasures SET moved_to = NULL WHERE moved_to = ?", (user_id,))  # what waits there is erased too
    number = latest(db) + 1
    db.execute(
        f"INSERT OR REPLACE INTO erasures (person, number, request, user_id, at) VALUES (?, ?, ?, ?, {NOW})",
        (person, number, request, user_id),
    )
    return number


def scrub(db: sqlite3.Connection) -> None:
    """Leave no deleted byte in the files, outside of a transaction.

    ``VACUUM`` also for what an earlier version has deleted, and for copies that SQLite leaves when it moves rows.

    Raises:
        TimeoutError: another process reads or writes; what is deleted may still be in the write-ahead log.
    """
    db.execute("VACUUM")
    (busy, *_) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise TimeoutError


def latest(db: sqlite3.Connection, within: float | None = None) -> int:
    """The number of the latest erasure, or of the latest within so many seconds; 0 when there was none."""
    since = "" if within is None else f" WHERE at >= {NOW} - {int(within * 1e6)}"
    return int(db.execute(f"SELECT coalesce(max(number), 0) FROM erasures{since}").fetchone()[0])


def is_erased(db: sqlite3.Connection, user_id: str, since: int) -> bool:
    """Whether a person was erased after the erasure number ``since``."""
    query = "SELECT 1 FROM erasures WHERE person = ? AND number > ?"
    return latest(db) > since and db.execute(query, (_person(db, user_id), since)).fetchone() is not None


def erase_moved(db: sqlite3.Connection, user_id: str, moved_to: str, request: str) -> int:
    """As ``erase``, of an id whose rows were moved to another: late writes belong there."""
    person = _person(db, user_id)
    before = db.execute(
        "SELECT iif(moved_to IS NULL, number, erased) FROM erasures WHERE person = ?", (person,)
    ).fetchone()
    db.execute("UPDATE erasures SET moved_to = ? WHERE moved_to = ?", (moved_to, user_id))
    # The person is known by that id again: what waits under it stays there. So moved_to names no id that was moved.
    again = _person(db, moved_to)
    db.execute("UPDATE erasures SET moved_to = ? WHERE person = ? AND moved_to IS NOT NULL", (moved_to, again))
    db.execute("UPDATE erasures SET moved_to = NULL WHERE person = ?", (person,))  # what is there is kept
    number = erase(db, user_id, request)
    row = moved_to, before[0] if before else 0, person
    db.execute("UPDATE erasures SET moved_to = ?, erased = ? WHERE person = ?", row)
    return number


def moved(db: sqlite3.Connection, user_id: str, since: int) -> Moved | None:
    """As ``Erasures.moved``."""
    query = "SELECT moved_to FROM erasures WHERE person = ? AND moved_to IS NOT NULL AND erased <= ?"
    row = db.execute(query, (_person(db, user_id), since)).fetchone()
    return None if row is None else Moved(row[0], latest(db))


@contextmanager
def checked(db: sqlite3.Connection) -> Iterator[None]:
    """Allow inserts in the ``with`` block, inside a transaction."""
    db.execute("UPDATE erasure_key SET checked = 1")
    yield
    db.execute("UPDATE erasure_key SET checked = 0")


@contextmanager
def guarded(db: sqlite3.Connection, operation: str, user_id: str, since: int) -> Iterator[None]:
    """Allow inserts in the ``with`` block, inside the transaction of a write.

    Raises:
        PersonErased: the person was erased after ``since``.
    """
    if is_erased(db, user_id, since):
        raise PersonErased(operation)
    if not latest(db):
        yield
        return
    with checked(db):
        yield


def pending(db: sqlite3.Connection, within: float) -> list[PendingErasure]:
    """The erasures that no cache has acknowledged; older ones are acknowledged."""
    db.execute(f"UPDATE erasures SET user_id = NULL WHERE user_id IS NOT NULL AND at < {NOW} - ?", (int(within * 1e6),))
    rows = db.execute("SELECT user_id, number FROM erasures WHERE user_id IS NOT NULL")
    return [PendingErasure(str(user_id), int(number)) for user_id, number in rows]


def acknowledge(db: sqlite3.Connection, erasure: PendingErasure) -> None:
    """Delete the user id from a tombstone."""
    db.execute("UPDATE erasures SET user_id = NULL WHERE user_id = ? AND number = ?", (erasure.user_id, erasure.number))


def _person(db: sqlite3.Connection, user_id: str) -> str:
    """The keyed hash that stands for a person."""
    (key,) = db.execute("SELECT key FROM erasure_key").fetchone()
    return hmac.digest(bytes(key), user_id.encode(), "sha256").hex()
