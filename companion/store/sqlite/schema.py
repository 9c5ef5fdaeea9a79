"""The tables of the SQLite store, and their migrations."""

import sqlite3

from ..profile_history import KEPT_DAYS
from .erasure import SCHEMA as ERASURES
from .times import NOW


class WrittenByNewerVersion(Exception):
    """A newer version of the companion has migrated the file."""


# Times are whole microseconds since 1970: they sort, and are exact.
_TABLES = """
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

_CONTEXT_AND_OUTBOX = """
CREATE TABLE summaries (
    user_id TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    text TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (user_id, conversation_id)
);
CREATE INDEX summaries_by_time ON summaries (user_id, at);

CREATE TABLE states (
    user_id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    updated_at INTEGER NOT NULL
);

CREATE TABLE outbox (
    user_id TEXT NOT NULL,
    what TEXT NOT NULL,
    version INTEGER NOT NULL,
    delivered INTEGER NOT NULL DEFAULT 0,
    written_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, what)
) WITHOUT ROWID;
CREATE INDEX outbox_owed ON outbox (written_at) WHERE version > delivered;
"""


def _counting(table: str, what: str) -> str:
    """Triggers that count every change to a table in the outbox, in the change's own transaction."""

    def count(row: str) -> str:
        return f"""
    INSERT INTO outbox (user_id, what, version, written_at)
    VALUES ({row}.user_id, '{what}', 1, {NOW})
    ON CONFLICT (user_id, what) DO UPDATE SET version = version + 1, written_at = excluded.written_at;
"""

    return f"""
CREATE TRIGGER {table}_counts_insert AFTER INSERT ON {table} BEGIN {count("new")} END;
CREATE TRIGGER {table}_counts_delete AFTER DELETE ON {table} BEGIN {count("old")} END;
CREATE TRIGGER {table}_counts_update AFTER UPDATE ON {table} BEGIN {count("new")} END;
CREATE TRIGGER {table}_counts_handover AFTER UPDATE ON {table} WHEN old.user_id <> new.user_id BEGIN {count("old")} END;
"""


_KEPT_SINCE = f"{NOW} - {KEPT_DAYS} * 86400000000"


def _recording(condition: str, event: str, user_id: str, text: str, at: str) -> str:
    """A trigger that records a version of a profile. A write through the store then names its author.

    A version is kept for ``KEPT_DAYS`` days after a later one has replaced it: a careless change of an old profile can
    be undone. Nothing is to be undone about the version of a deletion.
    """
    return f"""
CREATE TRIGGER profiles_recorded_{event.lower()} AFTER {event} ON profiles {condition} BEGIN
    INSERT INTO profile_versions (user_id, text, at, author, recorded_at)
    VALUES ({user_id}, {text}, {at}, 'dashboard', {NOW});
    DELETE FROM profile_versions WHERE recorded_at < {_KEPT_SINCE} AND (text = '' OR EXISTS (
        SELECT 1 FROM profile_versions AS later WHERE later.user_id = profile_versions.user_id
        AND later.seq > profile_versions.seq AND later.recorded_at < {_KEPT_SINCE}
    ));
END;
"""


# write_id is the natural key of a write: it makes a retry recognisable.
_PROFILE_HISTORY = (
    f"""
CREATE TABLE profile_versions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id TEXT NOT NULL,
    text TEXT NOT NULL,
    at INTEGER NOT NULL,
    author TEXT NOT NULL,
    write_id TEXT,
    recorded_at INTEGER NOT NULL
);
CREATE INDEX profile_versions_by_user ON profile_versions (user_id, seq);
CREATE UNIQUE INDEX profile_versions_by_write ON profile_versions (user_id, write_id) WHERE write_id IS NOT NULL;
CREATE INDEX profile_versions_by_age ON profile_versions (recorded_at);

INSERT INTO profile_versions (user_id, text, at, author, recorded_at)
SELECT user_id, text, updated_at, 'code', {NOW} FROM profiles;
"""
    + _recording("", "INSERT", "new.user_id", "new.text", "new.updated_at")
    + _recording(
        "WHEN new.text <> old.text OR new.user_id <> old.user_id",
        "UPDATE",
        "new.user_id",
        "new.text",
        # Who changes a row by hand does not think of its time.
        f"CASE new.updated_at WHEN old.updated_at THEN {NOW} ELSE new.updated_at END",
    )
    + _recording("", "DELETE", "old.user_id", "''", NOW)
)


# The migrations; a file of version 1 has had the first.
_STEPS = (
    _TABLES,
    _CONTEXT_AND_OUTBOX
    + _counting("profiles", "profile")
    + _counting("turns", "turn")
    + _counting("memories", "memory")
    + _counting("summaries", "summary")
    + _counting("states", "state"),
)


# In every file, of any version: an index changes nothing that an older version of the companion does with the file, and
# neither does the history of profiles. So a worker of that version can share the file while it is being replaced.
_INDEXES = """
CREATE INDEX IF NOT EXISTS turns_in_order ON turns (user_id, seq, conversation_id, at);
CREATE INDEX IF NOT EXISTS turns_by_age ON turns (at);
"""

# A fact that was removed stays so: a write of it that is retried, or replayed from a spool, changes nothing. Triggers,
# so that they hold for a worker of an earlier version and for a removal by hand too. The id of a fact is random.
_REMOVED_FACTS = """
CREATE TABLE IF NOT EXISTS removed_memories (
    user_id TEXT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (user_id, id)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS memories_removed AFTER DELETE ON memories BEGIN
    INSERT OR IGNORE INTO removed_memories (user_id, id) VALUES (old.user_id, old.id);
END;
CREATE TRIGGER IF NOT EXISTS memories_stay_removed BEFORE INSERT ON memories
WHEN EXISTS (SELECT 1 FROM removed_memories WHERE user_id = new.user_id AND id = new.id) BEGIN
    SELECT RAISE(IGNORE);
END;
"""

# What was forgotten, as hashes (``forgetting``). A worker of an earlier version does not know it, nor which turns are
# skipped.
_FORGOTTEN = """
CREATE TABLE IF NOT EXISTS forgotten (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id TEXT NOT NULL,
    key TEXT NOT NULL,
    words TEXT NOT NULL,
    UNIQUE (user_id, key)
);
"""


# It follows from the other data, and no trigger counts its writes (``openings``).
_OPENINGS = """
CREATE TABLE IF NOT EXISTS openings (
    user_id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    plan TEXT NOT NULL,
    texts TEXT,
    prompt TEXT NOT NULL,
    at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS openings_to_write ON openings (prompt, at) WHERE texts IS NULL;
"""


def create_schema(db: sqlite3.Connection) -> None:
    """Apply the migrations that the file has not had.

    Args:
        db: a connection to it, outside of a transaction.

    Raises:
        WrittenByNewerVersion: a newer version of the companion has migrated it.
        sqlite3.Error: the file cannot be written, or is not a database.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(_STEPS):
        raise WrittenByNewerVersion
    if version < len(_STEPS):
        # In the script, because executescript commits a transaction that was begun before it.
        steps = "".join(_STEPS[version:])
        db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {len(_STEPS)}; COMMIT;")
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'profile_versions'").fetchone() is None:
        db.executescript(f"BEGIN IMMEDIATE; {_PROFILE_HISTORY} COMMIT;")
    db.executescript(_INDEXES + _REMOVED_FACTS + _FORGOTTEN + _OPENINGS + ERASURES)
    if all(name != "skipped" for _, name, *_ in db.execute("PRAGMA table_info(turns)")):
        db.execute("ALTER TABLE turns ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0")
