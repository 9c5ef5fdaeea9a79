"""All that an SQLite file keeps of a person."""

import sqlite3

from ..records import Memory, PersonData, Summary, Turn
from ..state_json import state_from_json
from . import openings, profiles
from .times import from_microseconds


def export(db: sqlite3.Connection, user_id: str) -> PersonData:
    """All that is kept of a person."""
    turns = db.execute(
        "SELECT role, text, at, conversation_id, id FROM turns WHERE user_id = ? ORDER BY at, seq", (user_id,)
    )
    memories = db.execute("SELECT text, at, id FROM memories WHERE user_id = ? ORDER BY at, seq", (user_id,))
    summaries = db.execute("SELECT conversation_id, text, at FROM summaries WHERE user_id = ? ORDER BY at", (user_id,))
    state = db.execute("SELECT state FROM states WHERE user_id = ?", (user_id,)).fetchone()
    return PersonData(
        profile=profiles.text_of(db, user_id),
        versions=profiles.versions(db, user_id, None),
        turns=[Turn(role, text, from_microseconds(at), talk, id) for role, text, at, talk, id in turns],
        memories=[Memory(text, from_microseconds(at), id) for text, at, id in memories],
        summaries=[Summary(talk, text, from_microseconds(at)) for talk, text, at in summaries],
        state=None if state is None else state_from_json(state[0]),
        opening=openings.read(db, user_id),
    )
