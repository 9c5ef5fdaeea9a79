"""A contest: the same work by each contestant in turn, round after round, so that a noisy moment hits them all."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from typing import Any

from .figures import Spread

Read = Callable[[], Awaitable[Any]]
NAIVE = "naive"


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn of one contestant.

    Attributes:
        calls: operations done.
        wall: seconds per right answer; an operation that raised, or that answered anything else, is no speed.
        cpu: seconds of this process's processors per right answer, all threads of it.
        errors: operations that raised.
        wrong: operations that answered something else than what was stored.
    """

    calls: int
    wall: float
    cpu: float
    errors: int = 0
    wrong: int = 0


@dataclass(slots=True)
class Contest:
    """The samples of some rounds, and the ratios between contestants of one round."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def spread(self, name: str, figure: str) -> Spread:
        """``figure`` is an attribute of Sample."""
        return Spread.of(getattr(sample, figure) for sample in self.samples[name])

    def ratio(self, name: str, other: str, figure: str) -> Spread:
        """``figure`` of ``name`` over that of ``other``, round by round."""
        pairs = [
            (getattr(mine, figure), getattr(theirs, figure))
            for mine, theirs in zip(self.samples[name], self.samples[other], strict=True)
        ]
        return Spread.of(mine / theirs if isfinite(mine) and isfinite(theirs) else nan for mine, theirs in pairs)

    def bad(self, name: str) -> str:
        """Errors and wrong answers in words; ``0`` for none."""
        calls, errors, wrong = (
            sum(getattr(sample, figure) for sample in self.samples[name]) for figure in ("calls", "errors", "wrong")
        )
        parts = [f"{count:,} {what}" for count, what in ((errors, "errors"), (wrong, "wrong")) if count]
        return f"{', '.join(parts)} of {calls:,}" if parts else "0"

    def clean(self, name: str) -> bool:
        """Whether every answer was right."""
        return self.bad(name) == "0"


async def contest(
    readers: Mapping[str, Read], expected: Any, *, tasks: int, rounds: int, seconds: float = 0.15
) -> Contest:
    """Let each reader read, ``tasks`` callers at a time, for about ``seconds`` per round.

    A first round is not counted: it opens connections, and tells how many calls fill the time.
    """
    calls = {}
    for name, read in readers.items():
        await _turn(read, expected, tasks, tasks)
        trial = await _turn(read, expected, tasks, max(100, tasks * 2))
        calls[name] = min(200_000, max(tasks * 2, int(seconds / trial.wall)))  # of inf: tasks * 2
    found = Contest({name: [] for name in readers})
    for number in range(rounds):
        order = list(readers.items())
        for name, read in order if number % 2 else reversed(order):
            found.samples[name].append(await _turn(read, expected, tasks, calls[name]))
    return found


async def _turn(read: Read, expected: Any, tasks: int, calls: int) -> Sample:
    errors = wrong = 0

    async def caller(times: int) -> None:
        nonlocal errors, wrong
        for _ in range(times):
            try:
                value = await read()
            except Exception:  # whatever a client raises is an answer that did not come
                errors += 1
            else:
                if value != expected:
                    wrong += 1

    each = max(1, calls // tasks)
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    if tasks == 1:
        await caller(each)
    else:
        await asyncio.gather(*(caller(each) for _ in range(tasks)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    right = each * tasks - errors - wrong
    return Sample(each * tasks, wall / right if right else inf, cpu / right if right else inf, errors, wrong)
