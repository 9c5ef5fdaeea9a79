"""The tables of the SQLite store, and how a file gets them."""

import sqlite3

_VERSION = 1


class WrittenByNewerVersion(Exception):
    """The file has tables this version does not know."""


# Times are whole microseconds since 1970: they sort, and come back exactly as they went in.
_SCHEMA = """
CREATE TABLE profiles (
    user_id TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    updated_at INTEGER NOT NULL
);

CREATE TABLE turns (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id TEXT NOT NULL,
    id TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
    text TEXT NOT NULL,
    at INTEGER NOT NULL,
    UNIQUE (user_id, id)
);
CREATE INDEX turns_by_time ON turns (user_id, at, seq);

CREATE TABLE memories (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id TEXT NOT NULL,
    id TEXT NOT NULL,
    text TEXT NOT NULL,
    at INTEGER NOT NULL,
    UNIQUE (user_id, id)
);
CREATE INDEX memories_by_time ON memories (user_id, at, seq);

CREATE VIRTUAL TABLE memories_text USING fts5 (
    text, content = 'memories', content_rowid = 'seq', tokenize = 'porter unicode61 remove_diacritics 2'
);
CREATE TRIGGER memories_inserted AFTER INSERT ON memories BEGIN
    INSERT INTO memories_text (rowid, text) VALUES (new.seq, new.text);
END;
CREATE TRIGGER memories_deleted AFTER DELETE ON memories BEGIN
    INSERT INTO memories_text (memories_text, rowid, text) VALUES ('delete', old.seq, old.text);
END;
CREATE TRIGGER memories_updated AFTER UPDATE ON memories BEGIN
    INSERT INTO memories_text (memories_text, rowid, text) VALUES ('delete', old.seq, old.text);
    INSERT INTO memories_text (rowid, text) VALUES (new.seq, new.text);
END;
"""


def create_schema(db: sqlite3.Connection) -> None:
    """Brings the file up to this version. Raises WrittenByNewerVersion, sqlite3.Error."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise WrittenByNewerVersion
    if version < _VERSION:
        # One script: executescript would commit a transaction begun outside of it.
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
