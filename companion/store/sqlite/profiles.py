"""Profiles in SQLite: the current text, and every version of it.

Triggers (``schema``) record a version of every change, so that one made by hand is kept as well. A write through the
store names its author and itself in the version that the trigger has recorded, in the same transaction.
"""

import sqlite3
from dataclasses import dataclass

from ...profile_lines import lines_of
from ..profile_history import ProfileAuthor, ProfileVersion
from . import tombstones
from .times import NOW, from_microseconds


@dataclass(frozen=True, slots=True)
class Write:
    """A new text of a profile, to be stored inside a transaction. ``at`` is in microseconds."""

    user_id: str
    text: str
    at: int
    author: ProfileAuthor
    write_id: str | None

    def replace(self, db: sqlite3.Connection) -> bool:
        """Store it, whatever is there; whether it was not stored before."""
        return self._store(
            db,
            "INSERT INTO profiles (text, updated_at, user_id) VALUES (?, ?, ?)"
            " ON CONFLICT (user_id) DO UPDATE SET text = excluded.text, updated_at = excluded.updated_at",
        )

    def swap(self, db: sqlite3.Connection, instead_of: str | None) -> bool:
        """Store it if ``instead_of`` is there; whether it was, and this write was not stored before."""
        if instead_of is None:
            insert = "INSERT INTO profiles (text, updated_at, user_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
            return self._store(db, insert)
        return self._store(
            db, "UPDATE profiles SET text = ?, updated_at = ? WHERE user_id = ? AND text = ?", instead_of
        )

    def _store(self, db: sqlite3.Connection, statement: str, *more: str) -> bool:
        if self.write_id is not None and has_write(db, self.user_id, self.write_id):
            return False
        before = _last(db, self.user_id)
        if db.execute(statement, (self.text, self.at, self.user_id, *more)).rowcount <= 0:
            return False
        recorded = _last(db, self.user_id)
        if recorded != before:
            db.execute(
                "UPDATE profile_versions SET author = ?, write_id = ? WHERE seq = ?",
                (self.author, self.write_id, recorded),
            )
        elif self.write_id is not None:  # the text is the same; the write must be recognised all the same
            db.execute(
                "INSERT INTO profile_versions (user_id, text, at, author, write_id, recorded_at)"
                f" VALUES (?, ?, ?, ?, ?, {NOW})",
                (self.user_id, self.text, self.at, self.author, self.write_id),
            )
        tombstones.said_again(db, self.user_id, lines_of(self.text))
        return True


def text_of(db: sqlite3.Connection, user_id: str) -> str | None:
    """The user's profile; None when there is none."""
    row = db.execute("SELECT text FROM profiles WHERE user_id = ?", (user_id,)).fetchone()
    return None if row is None else str(row[0])


def has_write(db: sqlite3.Connection, user_id: str, write_id: str) -> bool:
    """Whether a write of the user is one of the kept versions."""
    query = "SELECT 1 FROM profile_versions WHERE user_id = ? AND write_id = ?"
    return db.execute(query, (user_id, write_id)).fetchone() is not None


def versions(db: sqlite3.Connection, user_id: str, limit: int | None) -> list[ProfileVersion]:
    """The user's kept versions, the newest first; all of them where ``limit`` is None."""
    rows = db.execute(
        "SELECT seq, text, at, author FROM profile_versions WHERE user_id = ? ORDER BY seq DESC LIMIT ?",
        (user_id, -1 if limit is None else max(limit, 0)),
    )
    return [ProfileVersion(number, str(text), from_microseconds(at), author) for number, text, at, author in rows]


def restore(db: sqlite3.Connection, user_id: str, number: int, now: int) -> bool:
    """Store a kept version again; whether there is one of this number."""
    query = "SELECT text FROM profile_versions WHERE user_id = ? AND seq = ?"
    row = db.execute(query, (user_id, number)).fetchone()
    return row is not None and Write(user_id, str(row[0]), now, "restore", None).replace(db)


def _last(db: sqlite3.Connection, user_id: str) -> int | None:
    (last,) = db.execute("SELECT max(seq) FROM profile_versions WHERE user_id = ?", (user_id,)).fetchone()
    return None if last is None else int(last)
