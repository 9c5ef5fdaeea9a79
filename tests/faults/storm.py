"""Calls that are cancelled at random points, in a loop that stalls at random, and what became of each of them.

Interrupting the companion is cancelling: whatever it was doing is cut off wherever it happens to be. Nobody may be
given another one's answer for that, nothing may be used up by it, and nobody may wait longer.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.faults.stopwatch import LoopWatch

Call = Callable[[str], Awaitable[Any]]
"""Asks something with a text that nobody else has. True: answered rightly; False: wrongly; None: not answered."""
CALLERS: Final = 100
_CANCELLED: Final = 0.9  # share of the calls that are cut off, or would be if they were not answered before
_LONGEST_STALL: Final = 0.08
SLACK: Final = 0.02


@dataclass
class Storm:
    """What became of the calls.

    Attributes:
        ends: reading of ``time.monotonic`` at which no more calls are made.
        deadline: seconds a call may take.
        slowest: seconds of the slowest call, without those in which the loop did not run.
        stalled: seconds in which it did not run.
        left: what was not given back: tasks, connections, places in a queue.
    """

    name: str
    ends: float = math.inf
    deadline: float = 0.05
    calls: int = 0
    cancelled: int = 0
    right: int = 0
    wrong: int = 0
    unanswered: int = 0
    slowest: float = 0.0
    stalled: float = 0.0
    seconds: float = 0.0
    left: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """The promises that were not kept."""
        promises = {
            f"{self.wrong} wrong answers": not self.wrong,
            f"a call took {self.slowest * 1000:.0f} ms": self.slowest <= self.deadline + SLACK,
            f"not given back: {', '.join(self.left)}": not self.left,
            "nothing was answered": self.right,
        }
        return [text for text, kept in promises.items() if not kept]


@asynccontextmanager
async def nothing_left(storm: Storm) -> AsyncIterator[None]:
    """Tasks that are there afterwards and were not before are noted."""
    before = asyncio.all_tasks()
    yield
    if left := asyncio.all_tasks() - before:
        _, left = await asyncio.wait(left, timeout=3.0)
        storm.left += sorted({f"task {task.get_name()}" for task in left})


async def rage(storm: Storm, call: Call, calls: int, seed: int, *, callers: int = CALLERS) -> None:
    """Make ``calls`` calls, ``callers`` at a time, cancel most of them, and note in ``storm`` what became of them."""
    draw = random.Random(seed)
    numbers = iter(range(calls))
    watch = LoopWatch()
    watch.start()
    began = time.perf_counter()

    async def timed(text: str) -> Any:
        asked = time.perf_counter()
        try:
            return await call(text)
        finally:
            ended = time.perf_counter()
            storm.slowest = max(storm.slowest, ended - asked - watch.within(asked, ended))

    async def caller() -> None:
        for number in numbers:
            if time.monotonic() > storm.ends:
                return
            storm.calls += 1
            task = asyncio.create_task(timed(f"{seed}.{number}"), name="storm")
            if draw.random() < _CANCELLED:
                if draw.random() < 0.5:
                    for _ in range(draw.randrange(5)):
                        await asyncio.sleep(0)
                else:
                    await asyncio.sleep(draw.uniform(0.0, 0.01))
                task.cancel()
            await asyncio.wait({task})
            if task.cancelled():
                storm.cancelled += 1
                continue
            outcome = task.result()
            storm.right += outcome is True
            storm.wrong += outcome is False
            storm.unanswered += outcome is None

    stalling = asyncio.create_task(_stall(random.Random(seed + 1)))
    try:
        await asyncio.gather(*(caller() for _ in range(callers)))
    finally:
        stalling.cancel()
        await asyncio.wait({stalling})
        watch.stop()
        storm.seconds += time.perf_counter() - began
        storm.stalled += watch.total


async def _stall(draw: random.Random) -> None:
    while True:
        await asyncio.sleep(draw.uniform(0.1, 0.4))
        time.sleep(draw.uniform(0.0, _LONGEST_STALL))  # noqa: ASYNC251 - the stall under test
