"""The soak itself: people come and go, there is trouble, and now and then it is quiet and everything is counted."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from unittest.mock import patch

from companion.writes.records import Profile, Write
from companion.writes.write_behind import WriteBehind
from tests.faults.call_timer import CallTimer
from tests.faults.dialogue import open_dialogue
from tests.faults.environment import Environment
from tests.faults.worker_setup import worker_settings
from tests.soak.ears import Ears
from tests.soak.ledger import Ledger
from tests.soak.memory import Memory
from tests.soak.people import Person
from tests.soak.remains import Remains
from tests.soak.tally import Tally
from tests.soak.troubles import Troubles
from tests.soak.visit import House, Visit
from tests.wait import until

LIMIT: Final = 0.07
"""Seconds a call of the cache may take: the deadline, and 20 ms."""
_QUIET_EVERY: Final = 30.0
_SETTLES: Final = 15.0  # seconds for what is owed when all is well again
_GONE: Final = 5.0  # seconds for what has been closed to be gone


@dataclass(frozen=True)
class Course:
    """How a soak goes.

    Attributes:
        seconds: for how long people come.
        rate: how many a minute.
        people: how many there are; they come back.
        rush: how many of them wait when the doors open: more at once than ever later. By then allocators have found
            all the room they need for the most that is held at a time, and memory can be compared.
        troubles: names of the faults; None for all there are.
        pause: seconds between two faults, least and most.
        lasts: seconds a fault lasts, least and most.
        haste: how long people think; 1 is usual.
    """

    seconds: float = 600.0
    rate: float = 200.0
    seed: int = 1
    people: int = 150
    rush: int = 40
    troubles: Sequence[str] | None = None
    pause: tuple[float, float] = (0.5, 2.0)
    duration: tuple[float, float] = (1.0, 3.0)
    haste: float = 1.0


@dataclass
class Outcome:
    """What a soak showed."""

    course: Course
    tally: Tally = field(default_factory=Tally)
    ears: Ears = field(default_factory=Ears)
    call_timer: CallTimer = field(default_factory=lambda: CallTimer(LIMIT))
    memory: Memory = field(default_factory=lambda: Memory(0.0))
    troubles: dict[str, int] = field(default_factory=dict)
    lost_turns: int = 0
    strangers: int = 0
    left: list[str] = field(default_factory=list)
    took: float = 0.0


class Soak:
    """A soak under way."""

    def __init__(self, course: Course, env: Environment, ledger: Ledger, result: Outcome, tell: Callable[[str], None]):
        self._course = course
        self._world = env
        self._outcome = result
        self._tally = result.tally
        self._tell = tell
        self._draw = random.Random(course.seed)
        self._people = [Person(number) for number in range(course.people)]
        self._troubles = Troubles(env, self._people, random.Random(course.seed + 1), course.troubles)
        self._house = House(ledger, self._troubles, result.tally, self._draw, course.haste)
        self._visits: set[asyncio.Task[None]] = set()
        self._doors = asyncio.Event()
        self._began = 0.0

    async def run(self) -> None:
        """All of it. Raises only what is wrong with the soak itself."""
        self._began = time.monotonic()
        self._doors.set()
        making = asyncio.create_task(self._make_trouble(), name="trouble")
        counting = asyncio.create_task(self._count_now_and_then(), name="counting")
        await self._let_people_come()
        self._troubles.stop()
        await making
        counting.cancel()
        await asyncio.wait({counting})
        await self._count()
        await self._settle()
        self._outcome.troubles = dict(self._troubles.had)
        self._outcome.took = time.monotonic() - self._began
        await self._look_for_strangers()

    async def _make_trouble(self) -> None:
        await self._troubles.make(pause=self._course.pause, duration=self._course.duration)

    async def _let_people_come(self) -> None:
        gap = 60.0 / self._course.rate
        for person in self._draw.sample(self._people, self._course.rush):
            self._visit(person)
        while (elapsed := time.monotonic() - self._began) < self._course.seconds:
            behind = self._tally.sessions * gap < elapsed  # somebody had to wait outside
            await asyncio.sleep(gap * self._draw.uniform(0.5, 1.5) * (0.75 if behind else 1.0))
            await self._doors.wait()
            self._visit(self._draw.choice(self._people))

    def _visit(self, person: Person) -> None:
        task = asyncio.create_task(Visit(person, self._house).happen(), name=f"visit of {person.user_id}")
        self._visits.add(task)
        task.add_done_callback(self._over)
        self._tally.at_once = max(self._tally.at_once, len(self._visits))

    def _over(self, visit: asyncio.Task[None]) -> None:
        self._visits.discard(visit)
        if not visit.cancelled() and (problem := visit.exception()) is not None:
            self._tally.failed += 1
            self._tally.note(f"a session failed: {problem!r}"[:300])

    async def _count_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_QUIET_EVERY)
            await self._count()

    async def _count(self) -> None:
        """When the fault is over, and all sessions are."""
        trouble = self._troubles.now
        async with self._troubles.calm:
            self._doors.clear()
            await until(lambda: not self._visits, 60.0)
            elapsed = time.monotonic() - self._began
            memory = self._outcome.memory
            size = memory.measure(elapsed).resident
            if memory.warm is None and self._troubles.rounds:
                memory.warm = elapsed
            missing = self._house.ledger.missing()
            self._doors.set()
        self._tell(
            f"{elapsed:6.0f} s  {self._tally.sessions:5} sessions  {size / (1 << 20):6.1f} MB"
            f"  {missing:3} turns still to be stored  last fault: {trouble or 'none'}"
        )

    async def _settle(self) -> None:
        """With everything healthy, one more session, and what could not be stored before is stored."""
        async with open_dialogue("the last"):
            try:
                await until(lambda: not self._house.ledger.missing(), _SETTLES)
            except AssertionError:
                self._outcome.lost_turns = self._house.ledger.missing()

    async def _look_for_strangers(self) -> None:
        """In the store, and in what is left in Redis."""
        self._outcome.strangers = self._house.ledger.strangers(self._people)
        for person in self._people:
            for key in await self._world.cli("KEYS", f"user:{person.user_id}:*"):
                if await self._world.cli("TYPE", key) == "string":
                    self._outcome.strangers += person.is_betrayed_by(str(await self._world.cli("GET", key)))


async def soak(course: Course, directory: Path, tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Let it happen in ``directory``, and ``tell`` a line now and then."""
    result = Outcome(course, memory=Memory(course.seconds))
    async with Environment(directory, "proxy", []) as env:
        settings = {"REDIS_URL": env.url, "COMPANION_HOME": str(directory / "home")}
        with worker_settings(**settings), result.ears.open(), result.call_timer.running():
            async with open_dialogue("the-first"):  # loads what is loaded once, and makes the database
                pass
            gc.collect()
            gc.freeze()  # as LiveKit does before a worker's first job
            before = Remains.now(env.port)
            with _ledger(directory) as ledger:
                await Soak(course, env, ledger, result, tell).run()
            result.left = await _left(before, env.port)
    return result


async def _left(before: Remains, port: int) -> list[str]:
    try:
        await until(lambda: not Remains.now(port).since(before), _GONE)
    except AssertionError:
        return Remains.now(port).since(before)
    return []


@contextmanager
def _ledger(directory: Path) -> Iterator[Ledger]:
    """The ledger, told of every profile that somebody wants to be kept."""
    ledger = Ledger(directory / "home" / "companion.db")
    write = WriteBehind.write

    async def told(backlog: WriteBehind, user_id: str, what: Write) -> bool:
        if isinstance(what, Profile):
            ledger.submit(user_id, what.text)
        return await write(backlog, user_id, what)

    try:
        with patch.object(WriteBehind, "write", told):
            yield ledger
    finally:
        ledger.close()
