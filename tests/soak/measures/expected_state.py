"""The expected state: every committed profile in commit order, recorded by the database, and the acknowledged writes.

A trigger records each committed profile. A *floor* is what had been acknowledged to a user at one moment; a read that
began then must return something at least as new. A write that was cancelled or is deferred may or may not be carried
out: it raises no floor, and reading it is valid too.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

from companion.conversation.opening.follow_up import MAX_TOPIC
from companion.material import quoted_line
from tests.soak.sessions.personas import Persona

_SUBMITTED: Final = 30  # submitted profiles of one user that are retained
_RETENTION: Final = 60.0  # seconds: longer than any read takes
_PAGES: Final = 64  # SQLite page cache, in pages of 4 kB
_SCHEMA = """
CREATE TABLE soak_profiles (seq INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX soak_profiles_by_user ON soak_profiles (user_id, seq);
CREATE TRIGGER soak_profile_new AFTER INSERT ON profiles BEGIN
    INSERT INTO soak_profiles (user_id, text) VALUES (new.user_id, new.text);
END;
CREATE TRIGGER soak_profile_changed AFTER UPDATE ON profiles BEGIN
    INSERT INTO soak_profiles (user_id, text) VALUES (new.user_id, new.text);
END;
"""

# Of each conversation of which the store has got a turn since the floor: the user's last turn of then, and later ones.
_LAST_WORDS: Final = """
SELECT text FROM turns AS said WHERE user_id = :user_id AND role = 'user'
AND conversation_id IN (SELECT conversation_id FROM turns WHERE user_id = :user_id AND seq >= :floor)
AND at >= coalesce((
    SELECT max(at) FROM turns AS earlier WHERE earlier.user_id = :user_id AND earlier.role = 'user'
    AND earlier.conversation_id = said.conversation_id AND earlier.seq <= :floor
), 0)
"""


@dataclass(frozen=True, slots=True)
class Floor:
    """The newest acknowledged writes of a user.

    Attributes:
        profile: sequence number of the committed profile.
        submitted: sequence number of its submission.
        fact: time of the fact, in microseconds since 1970.
        turn: the store's sequence number of the turn.
    """

    profile: int = 0
    submitted: int = 0
    fact: int = 0
    turn: int = 0


class _Submitted(NamedTuple):
    """A profile submitted for writing ``at`` a time of ``time.monotonic``, made from ``base`` (None: from any)."""

    number: int
    text: str
    at: float
    base: str | None

    def removes(self, line: str) -> bool:
        """Whether its author has taken ``line`` out of what they had read."""
        return line not in _lines(self.text) and (self.base is None or line in _lines(self.base))


class ExpectedState:
    """The expected state, recorded in tables of its own beside the companion's, in the existing file at ``path``.

    Queries run in the event loop: SQLite readers do not block, and a query takes less than a tenth of a millisecond.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute(f"PRAGMA cache_size = {_PAGES}")
        self._db.executescript(_SCHEMA)
        self._floors: dict[str, Floor] = {}
        self._submitted: dict[str, deque[_Submitted]] = {}
        self._numbers = count(1)
        self._missing: dict[str, set[str]] = {}
        self._promised: dict[str, set[str]] = {}

    def close(self) -> None:
        self._db.close()

    # -- acknowledged writes -------------------------------------------------------------------------------------

    def floor(self, user_id: str) -> Floor:
        """The current floor of a user."""
        return self._floors.get(user_id, Floor())

    def submit(self, user_id: str, profile: str, base: str | None) -> None:
        """Record that this profile was submitted for writing, and what its author had read."""
        texts = self._submitted.setdefault(user_id, deque(maxlen=_SUBMITTED))
        read = None if base is None else _one_line(base)
        texts.append(_Submitted(next(self._numbers), _one_line(profile), time.monotonic(), read))

    def profile_acknowledged(self, user_id: str, token: str) -> bool:
        """Raise the floor to the profile with ``token``.

        Returns:
            Whether it is stored.
        """
        seq = self._one("SELECT min(seq) FROM soak_profiles WHERE user_id = ? AND instr(text, ?)", user_id, token)
        # The first one: profiles merged from it later contain the token too.
        texts = self._submitted.get(user_id, deque())
        number = min((one.number for one in texts if token in one.text), default=0)
        while texts and texts[0].number < number and texts[0].at < time.monotonic() - _RETENTION:
            texts.popleft()
        return seq is not None and self._raise_floor(user_id, profile=seq, submitted=number)

    def fact_acknowledged(self, user_id: str, token: str) -> bool:
        """Raise the floor to the fact with ``token``.

        Returns:
            Whether it is stored.
        """
        at = self._one("SELECT max(at) FROM memories WHERE user_id = ? AND instr(text, ?)", user_id, token)
        return at is not None and self._raise_floor(user_id, fact=at)

    def fact_promised(self, user_id: str, token: str) -> None:
        """Record that storing the fact with ``token`` was promised for later."""
        self._promised.setdefault(user_id, set()).add(token)

    def session_ended(self, user_id: str, turns: Collection[str]) -> None:
        """Record the turns of an ended session. Turns not yet stored count as missing until they are."""
        if missing := self._not_stored(user_id, turns):
            self._missing.setdefault(user_id, set()).update(missing)
        elif turns:
            placeholders = ", ".join("?" * len(turns))
            statement = f"SELECT max(seq) FROM turns WHERE user_id = ? AND id IN ({placeholders})"
            self._raise_floor(user_id, turn=self._one(statement, user_id, *turns) or 0)

    def missing(self) -> int:
        """Number of turns of ended sessions and promised facts that are not stored yet."""
        for user_id, turns in list(self._missing.items()):
            self._missing[user_id] = self._not_stored(user_id, turns)
        for user_id, tokens in self._promised.items():
            kept = self._db.execute("SELECT text FROM memories WHERE user_id = ?", (user_id,)).fetchall()
            tokens -= {token for token in tokens if any(token in text for (text,) in kept)}
        return sum(map(len, (*self._missing.values(), *self._promised.values())))

    # -- reads --------------------------------------------------------------------------------------------------

    def allows_profile(self, user_id: str, floor: Floor, shown: str) -> bool:
        """Whether a read that began at ``floor`` may return this profile, its lines joined by "; "."""
        if not shown:
            return not floor.profile
        if any(one.number > floor.submitted and one.text == shown for one in self._submitted.get(user_id, ())):
            return True  # stored meanwhile, or deferred
        statement = "SELECT max(seq) FROM soak_profiles WHERE user_id = ? AND replace(text, char(10), '; ') = ?"
        newest = self._one(statement, user_id, shown)
        return (newest is not None and bool(newest >= floor.profile)) or self._is_merge(user_id, floor, shown)

    def _is_merge(self, user_id: str, floor: Floor, shown: str) -> bool:
        """Whether this is what waits for the store, applied to a stored profile that is new enough.

        Every line was stored or submitted, and each line of the acknowledged profile is there, unless a later profile
        lacks it or a later author removed it.
        """
        rows = self._db.execute(
            "SELECT replace(text, char(10), '; ') FROM soak_profiles WHERE user_id = ? AND seq >= ? ORDER BY seq",
            (user_id, floor.profile),
        )
        stored = [_lines(text) for (text,) in rows]
        submitted = self._submitted.get(user_id, ())
        lines = _lines(shown)
        known = set().union(*stored, *(_lines(one.text) for one in submitted))
        acknowledged = stored[0] if floor.profile and stored else []
        return set(lines) <= known and all(
            line in lines
            or any(line not in later for later in stored[1:])
            or any(one.number > floor.submitted and one.removes(line) for one in submitted)
            for line in acknowledged
        )

    def allows_facts(self, user_id: str, floor: Floor, shown: str) -> bool:
        """Whether a read that began at ``floor`` may return these as the newest facts."""
        rows = self._db.execute("SELECT text FROM memories WHERE user_id = ? AND at >= ?", (user_id, floor.fact))
        return not floor.fact or any(text in shown for (text,) in rows)

    def allows_last_words(self, user_id: str, floor: Floor, shown: str) -> bool:
        """Whether a read that began at ``floor`` may return this as the user's last turn."""
        rows = self._db.execute(_LAST_WORDS, {"user_id": user_id, "floor": floor.turn})
        # The prompt shows the characters of headings and delimiters by look-alikes.
        return any(quoted_line(" ".join(text.split())[:MAX_TOPIC]) == shown.strip() for (text,) in rows)

    def texts_of(self, user_id: str) -> list[str]:
        """The user's profile and facts, as the store holds them."""
        statement = (
            "SELECT text FROM profiles WHERE user_id = ?1 UNION ALL SELECT text FROM memories WHERE user_id = ?1"
        )
        return [text for (text,) in self._db.execute(statement, (user_id,))]

    def everything_of(self, user_id: str) -> list[str]:
        """All texts that the store holds of a user, in every table."""
        tables = ("profiles", "profile_versions", "turns", "memories", "summaries", "states")
        found = [self._db.execute(f"SELECT * FROM {table} WHERE user_id = ?", (user_id,)) for table in tables]
        return [str(row) for rows in found for row in rows]

    def foreign_records(self, personas: Sequence[Persona]) -> int:
        """Number of rows that contain another user's data."""
        found = 0
        for table, column in (("profiles", "text"), ("turns", "text"), ("memories", "text"), ("summaries", "text")):
            for persona in personas:
                rows = self._db.execute(f"SELECT {column} FROM {table} WHERE user_id = ?", (persona.user_id,))
                found += sum(persona.finds_foreign_data_in(text) for (text,) in rows)
        return found

    def _not_stored(self, user_id: str, turns: Collection[str]) -> set[str]:
        placeholders = ", ".join("?" * len(turns))
        rows = self._db.execute(f"SELECT id FROM turns WHERE user_id = ? AND id IN ({placeholders})", (user_id, *turns))
        return set(turns) - {id for (id,) in rows}

    def _raise_floor(self, user_id: str, **values: int) -> bool:
        before = self.floor(user_id)
        raised = {name: max(value, getattr(before, name)) for name, value in values.items()}
        self._floors[user_id] = replace(before, **raised)
        return True

    def _one(self, statement: str, *values: object) -> Any:
        return self._db.execute(statement, values).fetchone()[0]


def _lines(profile: str) -> list[str]:
    return profile.split("; ")


def _one_line(profile: str) -> str:
    return "; ".join(profile.splitlines())
