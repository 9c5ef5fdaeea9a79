"""How long every call of the cache took, and how long the loop it was made in was not running.

A call that is not answered because the loop does not run (a stall of our own, or of the machine) cannot be answered
in time by anybody. So stalls are measured, and shown beside the call; they are never a wider bound.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from cache import RedisCache

STEPWISE = ("invalidate", "invalidate_pattern", "clear_user_cache")
"""Calls that walk a keyspace of any size: documented to have the deadline at each step, not as a whole."""
CALLS = (
    "get",
    "get_many",
    "set",
    "set_many",
    "delete",
    "exists",
    "expire",
    "ttl",
    "health_check",
    "get_stats",
    *STEPWISE,
)
_BEAT = 0.004  # seconds between two looks at the loop
_TOLERATED = 0.001  # seconds by which a timer of a loop that runs well may be late


@dataclass(frozen=True, slots=True)
class Timed:
    """One call.

    Attributes:
        name: of the method.
        took: seconds from call to answer; for ``get_or_load`` without the time in which the loader ran.
        stalled: of these, seconds in which the loop did not run.
    """

    name: str
    took: float
    stalled: float

    @property
    def net(self) -> float:
        """Seconds for which the call itself is to blame."""
        return self.took - self.stalled


class LoopWatch:
    """Measures the stalls of the running loop, between ``start`` and ``stop``."""

    def __init__(self) -> None:
        self.stalls: list[tuple[float, float]] = []
        self.cpu = 0.0
        """Seconds of all stalls in which this thread was on the processor: ours. The rest is the machine's."""
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._cpu_then = 0.0

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._later()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @property
    def total(self) -> float:
        """Seconds of all stalls."""
        return sum(end - begin for begin, end in self.stalls)

    def within(self, began: float, ended: float) -> float:
        """Seconds of the time between two moments in which the loop did not run."""
        late = ended - self._due
        stalls = [*self.stalls, (self._due, ended)] if late > _TOLERATED else self.stalls
        total = 0.0
        for begin, end in reversed(stalls):
            if end <= began:
                break
            total += max(0.0, min(end, ended) - max(begin, began))
        return total

    def _later(self) -> None:
        self._due, self._cpu_then = time.perf_counter() + _BEAT, time.thread_time()
        self._timer = self._loop.call_later(_BEAT, self._look)

    def _look(self) -> None:
        now = time.perf_counter()
        if now - self._due > _TOLERATED:
            self.stalls.append((self._due, now))
            self.cpu += min(now - self._due, time.thread_time() - self._cpu_then)
        self._later()


class Stopwatch:
    """Times the calls of every RedisCache while ``running``."""

    def __init__(self) -> None:
        self.calls: list[Timed] = []
        self.loop = LoopWatch()
        self._loads: dict[str, list[tuple[float, float]]] = {}

    def slowest(self, stepwise: bool = False) -> Timed:
        """The call that took longest by itself, among the ordinary ones or those that go step by step."""
        chosen = [call for call in self.calls if (call.name in STEPWISE) is stepwise]
        return max(chosen, key=lambda call: call.net, default=Timed("none", 0.0, 0.0))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within this block."""
        replaced = {name: self._timed(name, getattr(RedisCache, name)) for name in CALLS}
        replaced["get_or_load"] = self._timed_load(RedisCache.get_or_load)
        self.loop.start()
        try:
            with patch.multiple(RedisCache, **replaced):
                yield
        finally:
            self.loop.stop()

    def _timed(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def timed(cache: RedisCache, *args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return await method(cache, *args, **kwargs)
            finally:
                self._note(name, (began, time.perf_counter()))

        return timed

    def _timed_load(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def timed(
            cache: RedisCache, key: str, loader: Callable[[], Awaitable[Any]], *args: Any, **kw: Any
        ) -> Any:
            loads = self._loads.setdefault(key, [])

            async def timed_loader() -> Any:
                start = time.perf_counter()
                try:
                    return await loader()
                finally:
                    loads.append((start, time.perf_counter()))

            began = time.perf_counter()
            try:
                return await method(cache, key, timed_loader, *args, **kw)
            finally:
                self._note("get_or_load", *_between(loads, began, time.perf_counter()))

        return timed

    def _note(self, name: str, *spans: tuple[float, float]) -> None:
        took = sum(end - begin for begin, end in spans)
        self.calls.append(Timed(name, took, sum(self.loop.within(*span) for span in spans)))


def _between(loads: list[tuple[float, float]], began: float, ended: float) -> list[tuple[float, float]]:
    """The parts of the time between two moments in which no load, by whomever, was under way."""
    gaps = []
    for start, end in sorted(loads):
        if end > began and start < ended:
            if start > began:
                gaps.append((began, start))
            began = end
    return [*gaps, (began, ended)] if began < ended else gaps
