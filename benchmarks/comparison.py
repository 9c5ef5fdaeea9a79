"""Interleaved comparison: each client does the same work in every round, so that noise affects all of them."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from typing import Any

from benchmarks.figures import Spread

Read = Callable[[], Awaitable[Any]]
NAIVE = "naive"


@dataclass(frozen=True, slots=True)
class Sample:
    """One client's work in one round.

    Attributes:
        calls: operations done.
        wall: seconds per correct answer; errors and wrong answers do not count as throughput.
        cpu: CPU seconds of this process, all threads, per correct answer.
        errors: operations that raised.
        wrong: operations that returned another value than the stored one.
    """

    calls: int
    wall: float
    cpu: float
    errors: int = 0
    wrong: int = 0


@dataclass(slots=True)
class Comparison:
    """Samples by client, one for each round, and ratios within rounds."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def spread(self, name: str, figure: str) -> Spread:
        """Median and range of ``figure``, an attribute of Sample."""
        return Spread.of(getattr(sample, figure) for sample in self.samples[name])

    def ratio(self, name: str, other: str, figure: str) -> Spread:
        """Ratio of ``figure`` between two clients, formed within each round."""
        pairs = [
            (getattr(mine, figure), getattr(theirs, figure))
            for mine, theirs in zip(self.samples[name], self.samples[other], strict=True)
        ]
        return Spread.of(mine / theirs if isfinite(mine) and isfinite(theirs) else nan for mine, theirs in pairs)

    def failures(self, name: str) -> str:
        """Describe errors and wrong answers; ``0`` for none."""
        calls, errors, wrong = (
            sum(getattr(sample, figure) for sample in self.samples[name]) for figure in ("calls", "errors", "wrong")
        )
        parts = [f"{count:,} {what}" for count, what in ((errors, "errors"), (wrong, "wrong")) if count]
        return f"{', '.join(parts)} of {calls:,}" if parts else "0"

    def all_correct(self, name: str) -> bool:
        """Whether every answer was correct."""
        return self.failures(name) == "0"


async def compare(
    readers: Mapping[str, Read], expected: Any, *, tasks: int, rounds: int, seconds: float = 0.15
) -> Comparison:
    """Run each reader with ``tasks`` concurrent callers for about ``seconds`` per round.

    An uncounted first round opens connections and calibrates the number of calls.
    """
    calls = {}
    for name, read in readers.items():
        await _sample(read, expected, tasks, tasks)
        calibration = await _sample(read, expected, tasks, max(100, tasks * 2))
        calls[name] = min(200_000, max(tasks * 2, int(seconds / calibration.wall)))  # of inf: tasks * 2
    found = Comparison({name: [] for name in readers})
    for number in range(rounds):
        order = list(readers.items())
        for name, read in order if number % 2 else reversed(order):
            found.samples[name].append(await _sample(read, expected, tasks, calls[name]))
    return found


async def _sample(read: Read, expected: Any, tasks: int, calls: int) -> Sample:
    errors = wrong = 0

    async def caller(times: int) -> None:
        nonlocal errors, wrong
        for _ in range(times):
            try:
                value = await read()
            except Exception:  # any exception of a client counts as an error
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
