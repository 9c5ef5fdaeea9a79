"""Lets time pass for Redis and an SQLite store, without waiting."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path

from tests.real.redis.redis_server import RedisServer

_FIRST_TIME = 10**15  # microseconds: an integer above this is a time


def let_pass(seconds: float, redis: RedisServer, database: Path) -> None:
    """Age what is stored by ``seconds``: times in the store, and what expires in Redis."""
    for key in redis.cli("KEYS", "*"):
        left = redis.cli("PTTL", key)
        if left > 0:
            redis.cli("PEXPIRE", key, int(left - seconds * 1000)) if left > seconds * 1000 else redis.cli("DEL", key)
    age_store(seconds, database)


def age_store(seconds: float, database: Path) -> None:
    """Age what is in the store by ``seconds``."""
    with sqlite3.connect(database, timeout=10) as db:
        # Without the triggers, which would take it for a change of what is known.
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        db.execute("BEGIN IMMEDIATE")
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            _age(db, table, seconds)
        for user, plan in db.execute("SELECT user_id, plan FROM openings").fetchall():
            db.execute("UPDATE openings SET plan = ? WHERE user_id = ?", (_aged(plan, seconds), user))
        for _, sql in triggers:
            db.execute(sql)
    db.close()


def _aged(plan: str, seconds: float) -> str:
    """A plan, in which the time of the last turn is a text."""
    fields = json.loads(plan)
    if fields.get("last_seen"):
        fields["last_seen"] = (datetime.fromisoformat(fields["last_seen"]) - timedelta(seconds=seconds)).isoformat()
    return json.dumps(fields)


def _age(db: sqlite3.Connection, table: str, seconds: float) -> None:
    for _, column, kind, *_ in db.execute(f"PRAGMA table_info({table})").fetchall():
        if kind == "INTEGER" and (column == "at" or column.endswith("_at")):
            micros = int(seconds * 1e6)
            db.execute(f"UPDATE {table} SET {column} = {column} - ? WHERE {column} > ?", (micros, _FIRST_TIME))
