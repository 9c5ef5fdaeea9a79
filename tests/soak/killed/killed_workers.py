"""Workers that are killed with SIGKILL at random, one after the other, and what must be in the store afterwards."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tests.companion.processes import processes
from tests.soak.killed.killed_worker import Report, work

_LIFETIME: Final = (1.5, 5.0)  # range of seconds
_UNSPOOLED: Final = 1.5  # seconds before a kill in which what was only accepted may be lost: the promise is 0.25


class KilledWorkers:
    """Starts workers and kills them.

    Args:
        users: the users whose workers they are, one at a time for each.
        home: the home of all workers, with their store.
        redis_url: the Redis of all workers.
        rng: decides when they are killed.

    Attributes:
        kills: how many were killed.
        promised: how many turns, facts, lines and removals must be in the store.
    """

    def __init__(self, users: Sequence[str], home: Path, redis_url: str, rng: random.Random) -> None:
        self.kills = 0
        self.promised = 0
        self._home = home
        self._redis_url = redis_url
        self._rng = rng
        self._promises: dict[str, set[tuple[str, str]]] = {user: set() for user in users}
        self._perhaps_removed: dict[str, set[str]] = {user: set() for user in users}

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Start workers, one for each user, and kill them, again and again until it is over."""
        await asyncio.gather(*(self._run(user, is_over) for user in self._promises))

    def broken_promises(self) -> list[str]:
        """What was promised and is not stored, and what was removed and is there; empty once all is well."""
        found = []
        with closing(sqlite3.connect(self._home / "companion.db")) as db:
            for user, promises in self._promises.items():
                turns = {row[0] for row in db.execute("SELECT id FROM turns WHERE user_id = ?", (user,))}
                facts = [row[0] for row in db.execute("SELECT text FROM memories WHERE user_id = ?", (user,))]
                row = db.execute("SELECT text FROM profiles WHERE user_id = ?", (user,)).fetchone()
                lines = set(row[0].splitlines()) if row else set()
                there = {
                    "turn": turns,
                    "fact": {fact.removeprefix("fact ") for fact in facts},
                    "line": lines | self._perhaps_removed[user] | set(facts),  # beyond the limit, a line is a fact
                }
                for kind, token in promises:
                    if token in lines if kind == "removal" else token not in there[kind]:
                        found.append(f"{kind} {token}")
                found += [f"twice: {fact}" for fact in set(facts) if facts.count(fact) > 1]
        return found

    async def _run(self, user: str, is_over: Callable[[], bool]) -> None:
        while not is_over():
            reports, theirs = processes.Pipe(duplex=False)
            worker = processes.Process(
                target=work, args=(theirs, user, self._home, self._redis_url, self._rng.randrange(1 << 32))
            )
            worker.start()
            theirs.close()
            received = asyncio.create_task(asyncio.to_thread(_receive, reports))
            await asyncio.sleep(self._rng.uniform(*_LIFETIME))
            killed_at = time.monotonic()
            worker.kill()
            await asyncio.to_thread(worker.join)
            worker.close()
            self.kills += 1
            self._note(user, await received, killed_at)
            reports.close()

    def _note(self, user: str, reports: list[tuple[float, Report]], killed_at: float) -> None:
        for at, (kind, token, stored) in reports:
            if kind == "attempt":
                self._perhaps_removed[user].add(token)
            elif stored or at < killed_at - _UNSPOOLED:
                self._promises[user].add((kind, token))
                self.promised += 1


def _receive(reports: Connection) -> list[tuple[float, Report]]:
    received: list[tuple[float, Report]] = []
    while True:
        try:
            report = reports.recv()
            received.append((time.monotonic(), report))
        except (EOFError, OSError):
            return received
