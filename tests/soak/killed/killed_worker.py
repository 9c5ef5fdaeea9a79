"""A worker in a process of its own that says and saves things until it is killed.

It reports each thing to the soak test when the write-behind queue has it, and whether the call answered that it is
stored. Its store refuses writes, or does not answer, for a part of the time. Two tasks save profiles at once, each from
the text that it has read.
"""

from __future__ import annotations

import asyncio
import os
import random
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from uuid import uuid4

from companion import Caller, get_user_profile_async, save_user_profile_async, use_caller
from companion.conversation.turn_log import TurnLog
from companion.memory.facts import remember_fact_async
from companion.runtime import Runtime, set_runtime
from companion.store import Memory, SqliteStore, StoreError, Turn
from tests.faults.harness.worker_setup import mute_logs

_MOST_LINES: Final = 40
_WRITES: Final = ("add_turn", "add_memory", "save_profile", "swap_profile")


class Report(NamedTuple):
    """One thing that the worker has done: a turn, a fact, a line of the profile, or the removal of one.

    ``attempt``: it is about to remove the line, and may be killed before it can say that it has.
    """

    kind: Literal["turn", "fact", "line", "removal", "attempt"]
    token: str
    stored: bool


class _MoodyStore(SqliteStore):
    """A store with outages of its own."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        super().__init__(path)
        self._rng = rng
        self._refuses = False
        self._answers = asyncio.Event()

    async def change_moods(self) -> None:
        while True:
            self._refuses = False
            self._answers.set()
            await asyncio.sleep(self._rng.uniform(0.1, 1.0))
            self._refuses = self._rng.random() < 0.5
            if not self._refuses:
                self._answers.clear()
            await asyncio.sleep(self._rng.uniform(0.5, 5.0))

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if name not in _WRITES:
            return method

        async def moody(*args: Any, **kwargs: Any) -> Any:
            await self._answers.wait()
            if self._refuses:
                raise StoreError(name, "refused")
            return await method(*args, **kwargs)

        return moody


def work(reports: Connection, user_id: str, home: Path, redis_url: str, seed: int) -> None:
    """Run until killed."""
    mute_logs()
    os.environ |= {"REDIS_URL": redis_url, "COMPANION_HOME": str(home)}

    async def run() -> None:
        await _Worker(reports, user_id, home, random.Random(seed)).run()

    asyncio.run(run())


class _Worker:
    def __init__(self, reports: Connection, user_id: str, home: Path, rng: random.Random) -> None:
        self._reports = reports
        self._rng = rng
        self._caller = Caller(user_id)
        self._store = _MoodyStore(home / "companion.db", rng)
        self._runtime = set_runtime(Runtime(store=self._store))
        self._log = TurnLog(self._caller, self._runtime.write_behind)
        self._removed: set[str] = set()

    async def run(self) -> None:
        with use_caller(self._caller):
            await asyncio.gather(
                self._store.change_moods(),
                self._talk(),
                self._remember(),
                self._save(),
                self._save(),
            )

    def _report(self, report: Report) -> None:
        self._reports.send(report)

    async def _talk(self) -> None:
        for number in range(1_000_000):
            token = uuid4().hex
            role: Literal["user", "assistant"] = "assistant" if number % 2 else "user"
            self._log.add(Turn(role, f"turn {token}", datetime.now(UTC), self._log.conversation_id, id=token))
            self._report(Report("turn", token, stored=False))
            await asyncio.sleep(self._rng.uniform(0.05, 0.2))

    async def _remember(self) -> None:
        while True:
            token = uuid4().hex
            if self._rng.random() < 0.5:
                self._runtime.write_behind.add(self._caller.user_id, Memory(f"fact {token}", datetime.now(UTC)))
                self._report(Report("fact", token, stored=False))
            else:
                kept = await remember_fact_async(f"fact {token}")
                self._report(Report("fact", token, stored=kept == "stored"))
            await asyncio.sleep(self._rng.uniform(0.1, 0.4))

    async def _save(self) -> None:
        while True:
            read = await get_user_profile_async()
            lines = read.splitlines()
            await asyncio.sleep(self._rng.uniform(0.0, 0.05))  # the other one may save meanwhile
            candidates = [line for line in lines if line not in self._removed]
            if candidates and (len(lines) > _MOST_LINES or self._rng.random() < 0.4):
                gone = self._rng.choice(candidates)
                self._removed.add(gone)
                self._report(Report("attempt", gone, stored=False))
                text, report = "\n".join(line for line in lines if line != gone), Report("removal", gone, stored=False)
            else:
                token = f"note {uuid4().hex}"
                text, report = "\n".join([*lines, token]), Report("line", token, stored=False)
            stored = await save_user_profile_async(text, made_from=read)
            self._report(report._replace(stored=stored))
            await asyncio.sleep(self._rng.uniform(0.05, 0.3))
