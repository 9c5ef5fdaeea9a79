"""What is true: the database's own record of what was committed, in what order, and what has been acknowledged.

A trigger writes down every profile that is committed. A *floor* is what had been acknowledged to a user at one moment;
what is served to a read that began then must be at least as new. A write whose caller was cut off, or that waits for
the store, may or may not have happened: it raises no floor, and is no lie either when it is served.
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

from companion.conversation.follow_up import MAX_TOPIC
from tests.soak.people import Person

_SUBMITTED: Final = 30  # profiles of one user that may wait for the store
_REMEMBERED: Final = 60.0  # seconds: longer than any read takes
_PAGES: Final = 64  # of the file, of 4 kB each, that are kept in memory: what is read again and again
_RECORD = """
CREATE TABLE soak_profiles (seq INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX soak_profiles_by_user ON soak_profiles (user_id, seq);
CREATE TRIGGER soak_profile_new AFTER INSERT ON profiles BEGIN
    INSERT INTO soak_profiles (user_id, text) VALUES (new.user_id, new.text);
END;
CREATE TRIGGER soak_profile_changed AFTER UPDATE ON profiles BEGIN
    INSERT INTO soak_profiles (user_id, text) VALUES (new.user_id, new.text);
END;
"""


@dataclass(frozen=True, slots=True)
class Floor:
    """What had been acknowledged.

    Attributes:
        profile: the number of a profile in the record.
        submitted: how many profiles had been submitted up to that one.
        fact: when the fact was told, in microseconds since 1970.
        turn: when the turn was said.
    """

    profile: int = 0
    submitted: int = 0
    fact: int = 0
    turn: int = 0


class _Submitted(NamedTuple):
    """A profile that somebody wants to be kept, since the moment ``at`` of ``time.monotonic``."""

    number: int
    text: str
    at: float


class Ledger:
    """The record beside the companion's tables in the file at ``path``, which must be there.

    It is asked in the event loop: readers wait for nobody, and an answer takes less than a tenth of a millisecond.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute(f"PRAGMA cache_size = {_PAGES}")
        self._db.executescript(_RECORD)
        self._floors: dict[str, Floor] = {}
        self._submitted: dict[str, deque[_Submitted]] = {}
        self._numbers = count(1)
        self._missing: dict[str, set[str]] = {}
        self._promised: dict[str, set[str]] = {}

    def close(self) -> None:
        self._db.close()

    # -- what is acknowledged ------------------------------------------------------------------------------------

    def floor(self, user_id: str) -> Floor:
        """What has been acknowledged by now."""
        return self._floors.get(user_id, Floor())

    def submit(self, user_id: str, profile: str) -> None:
        """Somebody wants this profile to be kept."""
        texts = self._submitted.setdefault(user_id, deque(maxlen=_SUBMITTED))
        texts.append(_Submitted(next(self._numbers), _one_line(profile), time.monotonic()))

    def profile_acknowledged(self, user_id: str, token: str) -> bool:
        """Somebody was told that the profile with ``token`` is kept. Whether it is."""
        seq = self._one("SELECT min(seq) FROM soak_profiles WHERE user_id = ? AND instr(text, ?)", user_id, token)
        # The first one: those that were made from it later have it too.
        texts = self._submitted.get(user_id, deque())
        number = min((one.number for one in texts if token in one.text), default=0)
        while texts and texts[0].number < number and texts[0].at < time.monotonic() - _REMEMBERED:
            texts.popleft()
        return seq is not None and self._raise(user_id, profile=seq, submitted=number)

    def fact_acknowledged(self, user_id: str, token: str) -> bool:
        """Somebody was told that the fact with ``token`` is kept. Whether it is."""
        at = self._one("SELECT max(at) FROM memories WHERE user_id = ? AND instr(text, ?)", user_id, token)
        return at is not None and self._raise(user_id, fact=at)

    def fact_promised(self, user_id: str, token: str) -> None:
        """Somebody was told that the fact with ``token`` will be kept as soon as the store can."""
        self._promised.setdefault(user_id, set()).add(token)

    def conversation_over(self, user_id: str, turns: Collection[str]) -> None:
        """A conversation with the turns of these ids is over. Those that are not stored now have to be, one day."""
        if missing := self._absent(user_id, turns):
            self._missing.setdefault(user_id, set()).update(missing)
        elif turns:
            marks = ", ".join("?" * len(turns))
            statement = f"SELECT max(at) FROM turns WHERE user_id = ? AND role = 'user' AND id IN ({marks})"
            self._raise(user_id, turn=self._one(statement, user_id, *turns) or 0)

    def missing(self) -> int:
        """How much of what was said in conversations that are over, or was promised, is still not stored."""
        for user_id, turns in list(self._missing.items()):
            self._missing[user_id] = self._absent(user_id, turns)
        for user_id, tokens in self._promised.items():
            kept = self._db.execute("SELECT text FROM memories WHERE user_id = ?", (user_id,)).fetchall()
            tokens -= {token for token in tokens if any(token in text for (text,) in kept)}
        return sum(map(len, (*self._missing.values(), *self._promised.values())))

    # -- what was served -----------------------------------------------------------------------------------------

    def allows_profile(self, user_id: str, floor: Floor, shown: str) -> bool:
        """Whether a profile, its lines joined by "; ", may be served to a read that began at ``floor``."""
        if not shown:
            return not floor.profile
        if any(one.number > floor.submitted and one.text == shown for one in self._submitted.get(user_id, ())):
            return True  # it may have been stored, or waits for the store
        statement = "SELECT max(seq) FROM soak_profiles WHERE user_id = ? AND replace(text, char(10), '; ') = ?"
        newest = self._one(statement, user_id, shown)
        return newest is not None and bool(newest >= floor.profile)

    def allows_facts(self, user_id: str, floor: Floor, shown: str) -> bool:
        """Whether these may be served as the newest facts."""
        rows = self._db.execute("SELECT text FROM memories WHERE user_id = ? AND at >= ?", (user_id, floor.fact))
        return not floor.fact or any(text in shown for (text,) in rows)

    def allows_last_words(self, user_id: str, floor: Floor, shown: str) -> bool:
        """Whether these may be served as the last thing the user said."""
        rows = self._db.execute(
            "SELECT text, at FROM turns WHERE user_id = ? AND role = 'user' AND at >= ?", (user_id, floor.turn)
        )
        return any(" ".join(text.split())[:MAX_TOPIC].strip() == shown.strip() for text, _ in rows)

    def strangers(self, people: Sequence[Person]) -> int:
        """How many rows hold something that belongs to somebody else."""
        wrong = 0
        for table, column in (("profiles", "text"), ("turns", "text"), ("memories", "text"), ("summaries", "text")):
            for person in people:
                rows = self._db.execute(f"SELECT {column} FROM {table} WHERE user_id = ?", (person.user_id,))
                wrong += sum(person.is_betrayed_by(text) for (text,) in rows)
        return wrong

    def _absent(self, user_id: str, turns: Collection[str]) -> set[str]:
        marks = ", ".join("?" * len(turns))
        rows = self._db.execute(f"SELECT id FROM turns WHERE user_id = ? AND id IN ({marks})", (user_id, *turns))
        return set(turns) - {id for (id,) in rows}

    def _raise(self, user_id: str, **heights: int) -> bool:
        before = self.floor(user_id)
        higher = {name: max(height, getattr(before, name)) for name, height in heights.items()}
        self._floors[user_id] = replace(before, **higher)
        return True

    def _one(self, statement: str, *values: object) -> Any:
        return self._db.execute(statement, values).fetchone()[0]


def _one_line(profile: str) -> str:
    return "; ".join(profile.splitlines())
