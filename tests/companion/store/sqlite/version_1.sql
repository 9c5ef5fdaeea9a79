-- A file as version 1 of the SQLite store made it, with something in every table.
PRAGMA journal_mode = WAL;

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

INSERT INTO profiles VALUES ('u', 'from before', 1772366400000000);
INSERT INTO turns (user_id, id, conversation_id, role, text, at) VALUES
    ('u', 't1', 'c1', 'user', 'hello', 1772366400000001),
    ('u', 't2', 'c1', 'assistant', 'hi', 1772366400000002);
INSERT INTO memories (user_id, id, text, at) VALUES ('u', 'm1', 'likes tea', 1772366400000000);
PRAGMA user_version = 1;
