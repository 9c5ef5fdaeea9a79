"""How long every call of the cache took, and how long the loop it was made in was not running.

A call that is not answered because the loop does not run (a stall of our own, or of the machine) cannot be answered
in time by anybody. So stalls are measured, and shown beside the call; they are never a wider bound.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final
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
KEPT: Final = 120.0
"""Seconds for which stalls and loads are remembered: longer than any call lasts."""


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
        self.stalls: deque[tuple[float, float]] = deque()
        """Those of the last ``KEPT`` seconds."""
        self.total = 0.0
        """Seconds of all stalls."""
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

    def within(self, began: float, ended: float) -> float:
        """Seconds of the time between two moments in which the loop did not run."""
        now_late = [(self._due, ended)] if ended - self._due > _TOLERATED else []
        total = 0.0
        for begin, end in chain(now_late, reversed(self.stalls)):
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
            self.total += now - self._due
            self.stalls.append((self._due, now))
            _forget(self.stalls, now)
            self.cpu += min(now - self._due, time.thread_time() - self._cpu_then)
        self._later()


@dataclass
class _Loads:
    """The loads of one key, by whomever, as [begin, end] (inf: under way); and when somebody last asked for it."""

    spans: deque[list[float]] = field(default_factory=deque)
    asked: float = 0.0


class Stopwatch:
    """Times the calls of every RedisCache while ``running``.

    Args:
        limit: seconds an ordinary call may take by itself; what takes longer counts as ``late``.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self.calls = 0
        self.late = 0
        self.loop = LoopWatch()
        self._limit = limit
        self._slowest = dict.fromkeys((False, True), Timed("none", 0.0, 0.0))
        self._loads: dict[str, _Loads] = {}

    def slowest(self, stepwise: bool = False) -> Timed:
        """The call that took longest by itself, among the ordinary ones or those that go step by step."""
        return self._slowest[stepwise]

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
            loads = self._loads_of(key)

            async def timed_loader() -> Any:
                loads.spans.append(span := [time.perf_counter(), math.inf])
                try:
                    return await loader()
                finally:
                    span[1] = time.perf_counter()

            began = time.perf_counter()
            try:
                return await method(cache, key, timed_loader, *args, **kw)
            finally:
                self._note("get_or_load", *_between(loads.spans, began, time.perf_counter()))

        return timed

    def _note(self, name: str, *spans: tuple[float, float]) -> None:
        took = sum(end - begin for begin, end in spans)
        call = Timed(name, took, sum(self.loop.within(*span) for span in spans))
        stepwise = name in STEPWISE
        self.calls += 1
        self.late += not stepwise and call.net > self._limit
        self._slowest[stepwise] = max(self._slowest[stepwise], call, key=lambda one: one.net)

    def _loads_of(self, key: str) -> _Loads:
        now = time.perf_counter()
        # Put at the end again, so that those nobody has asked for in a long time are at the front.
        loads = self._loads[key] = self._loads.pop(key, None) or _Loads()
        loads.asked = now
        _forget(loads.spans, now)
        while (oldest := next(iter(self._loads))) != key and self._loads[oldest].asked < now - KEPT:
            del self._loads[oldest]
        return loads


def _forget(spans: deque[Any], now: float) -> None:
    while spans and spans[0][1] < now - KEPT:
        spans.popleft()


def _between(loads: Iterable[list[float]], began: float, ended: float) -> list[tuple[float, float]]:
    """The parts of the time between two moments in which no load, by whomever, was under way."""
    gaps = []
    for start, end in sorted(loads):
        if end > began and start < ended:
            if start > began:
                gaps.append((began, start))
            began = end
    return [*gaps, (began, ended)] if began < ended else gaps
