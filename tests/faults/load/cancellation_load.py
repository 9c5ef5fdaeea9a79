"""Cancellation load: calls cancelled at random points in a loop that stalls at random.

Interrupting the companion cancels its calls at any await. No other call may then receive a wrong reply, no resource
may leak, and no other call may wait longer.
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

from tests.faults.harness.call_timer import StallMonitor

Call = Callable[[str], Awaitable[Any]]
"""One call with a unique text. True: correct reply; False: wrong reply; None: no reply."""
CONCURRENCY: Final = 100
_CANCELLED_SHARE: Final = 0.9  # share of the calls that are cancelled unless they return first
_LONGEST_STALL: Final = 0.08
SLACK: Final = 0.02


@dataclass
class LoadResult:
    """Counts of one load run.

    Attributes:
        stop_at: ``time.monotonic`` after which no further call is made.
        deadline: seconds a call may take.
        slowest: seconds of the slowest call, without stalls of the loop.
        stalled: seconds of loop stalls.
        leaked: resources not released: tasks, connections, queue slots.
    """

    name: str
    stop_at: float = math.inf
    deadline: float = 0.05
    calls: int = 0
    cancelled: int = 0
    correct: int = 0
    wrong: int = 0
    unanswered: int = 0
    slowest: float = 0.0
    stalled: float = 0.0
    seconds: float = 0.0
    leaked: list[str] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        """The invariants that did not hold."""
        invariants = {
            f"{self.wrong} wrong answers": not self.wrong,
            f"a call took {self.slowest * 1000:.0f} ms": self.slowest <= self.deadline + SLACK,
            f"leaked: {', '.join(self.leaked)}": not self.leaked,
            "no call was answered": self.correct,
        }
        return [violation for violation, holds in invariants.items() if not holds]


@asynccontextmanager
async def no_leaked_tasks(result: LoadResult) -> AsyncIterator[None]:
    """Record tasks that the block leaves running as leaked."""
    before = asyncio.all_tasks()
    yield
    if leaked := asyncio.all_tasks() - before:
        _, leaked = await asyncio.wait(leaked, timeout=3.0)
        result.leaked += sorted({f"task {task.get_name()}" for task in leaked})


async def run_load(result: LoadResult, call: Call, calls: int, seed: int, *, concurrency: int = CONCURRENCY) -> None:
    """Make ``calls`` calls, ``concurrency`` at a time, cancel most of them, and count the outcomes in ``result``."""
    rng = random.Random(seed)
    numbers = iter(range(calls))
    monitor = StallMonitor()
    monitor.start()
    began = time.perf_counter()

    async def timed(text: str) -> Any:
        called = time.perf_counter()
        try:
            return await call(text)
        finally:
            returned = time.perf_counter()
            result.slowest = max(result.slowest, returned - called - monitor.stalled_between(called, returned))

    async def worker() -> None:
        for number in numbers:
            if time.monotonic() > result.stop_at:
                return
            result.calls += 1
            task = asyncio.create_task(timed(f"{seed}.{number}"), name="load")
            if rng.random() < _CANCELLED_SHARE:
                if rng.random() < 0.5:
                    for _ in range(rng.randrange(5)):
                        await asyncio.sleep(0)
                else:
                    await asyncio.sleep(rng.uniform(0.0, 0.01))
                task.cancel()
            await asyncio.wait({task})
            if task.cancelled():
                result.cancelled += 1
                continue
            answer = task.result()
            result.correct += answer is True
            result.wrong += answer is False
            result.unanswered += answer is None

    stalling = asyncio.create_task(_stall(random.Random(seed + 1)))
    try:
        await asyncio.gather(*(worker() for _ in range(concurrency)))
    finally:
        stalling.cancel()
        await asyncio.wait({stalling})
        monitor.stop()
        result.seconds += time.perf_counter() - began
        result.stalled += monitor.total


async def _stall(rng: random.Random) -> None:
    while True:
        await asyncio.sleep(rng.uniform(0.1, 0.4))
        time.sleep(rng.uniform(0.0, _LONGEST_STALL))  # noqa: ASYNC251 - the stall under test
