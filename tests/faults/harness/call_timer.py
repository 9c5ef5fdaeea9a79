"""Times every call of the cache, and the stalls of the event loop during it.

No call can meet its deadline while the loop does not run, be it a stall of this process or of the machine. Stalls are
measured and reported beside the call; they never widen a bound.
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

PER_STEP = ("invalidate", "invalidate_pattern", "clear_user_cache")
"""Calls that may scan the keyspace: the deadline applies to each step, not to the whole call."""
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
    *PER_STEP,
)
LOADS = ("get_or_load", "warm")
_POLL_INTERVAL = 0.004  # seconds between two ticks
_TIMER_TOLERANCE = 0.001  # seconds a timer may be late in a healthy loop
RETENTION: Final = 120.0
"""Seconds for which stalls and loads are retained: longer than any call lasts."""


@dataclass(frozen=True, slots=True)
class TimedCall:
    """One call.

    Attributes:
        name: the method.
        took: seconds from call to return; for ``LOADS`` without the loader's time.
        stalled: seconds of these during which the loop was stalled.
    """

    name: str
    took: float
    stalled: float

    @property
    def net(self) -> float:
        """Seconds without the loop's stalls."""
        return self.took - self.stalled


class StallMonitor:
    """Measures the stalls of the running loop, between ``start`` and ``stop``."""

    def __init__(self) -> None:
        self.stalls: deque[tuple[float, float]] = deque()
        """(begin, end) of each stall of the last ``RETENTION`` seconds."""
        self.total = 0.0
        """Total seconds of stalls."""
        self.cpu = 0.0
        """Seconds of the stalls during which this thread was on the CPU. The rest is due to the machine."""
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._cpu_at_schedule = 0.0

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._schedule()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def stalled_between(self, began: float, ended: float) -> float:
        """Seconds between two moments during which the loop was stalled."""
        now_late = [(self._due, ended)] if ended - self._due > _TIMER_TOLERANCE else []
        total = 0.0
        for begin, end in chain(now_late, reversed(self.stalls)):
            if end <= began:
                break
            total += max(0.0, min(end, ended) - max(begin, began))
        return total

    def _schedule(self) -> None:
        self._due, self._cpu_at_schedule = time.perf_counter() + _POLL_INTERVAL, time.thread_time()
        self._timer = self._loop.call_later(_POLL_INTERVAL, self._tick)

    def _tick(self) -> None:
        now = time.perf_counter()
        if now - self._due > _TIMER_TOLERANCE:
            self.total += now - self._due
            self.stalls.append((self._due, now))
            _expire(self.stalls, now)
            self.cpu += min(now - self._due, time.thread_time() - self._cpu_at_schedule)
        self._schedule()


@dataclass
class _Loads:
    """The loads of one key by any caller as [begin, end] (end is inf while in flight), and the key's last use."""

    spans: deque[list[float]] = field(default_factory=deque)
    last_used: float = 0.0


class CallTimer:
    """Times the calls of every RedisCache while ``running``.

    Args:
        limit: seconds that an ordinary call may take without stalls; longer ones count as ``deadline_misses``.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self.calls = 0
        self.deadline_misses = 0
        self.loop = StallMonitor()
        self._limit = limit
        self._slowest = dict.fromkeys((False, True), TimedCall("none", 0.0, 0.0))
        self._loads: dict[str, _Loads] = {}

    def slowest(self, per_step: bool = False) -> TimedCall:
        """The call with the largest ``net``, among the ordinary ones or those with a deadline per step."""
        return self._slowest[per_step]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time calls within this block."""
        replaced = {name: self._timed(name, getattr(RedisCache, name)) for name in CALLS}
        replaced |= {name: self._timed_load(name, getattr(RedisCache, name)) for name in LOADS}
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
                self._record(name, (began, time.perf_counter()))

        return timed

    def _timed_load(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
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
                self._record(name, *_outside_loads(loads.spans, began, time.perf_counter()))

        return timed

    def _record(self, name: str, *spans: tuple[float, float]) -> None:
        took = sum(end - begin for begin, end in spans)
        call = TimedCall(name, took, sum(self.loop.stalled_between(*span) for span in spans))
        per_step = name in PER_STEP
        self.calls += 1
        self.deadline_misses += not per_step and call.net > self._limit
        self._slowest[per_step] = max(self._slowest[per_step], call, key=lambda one: one.net)

    def _loads_of(self, key: str) -> _Loads:
        now = time.perf_counter()
        # Reinsert at the end: the dict stays ordered by last use.
        loads = self._loads[key] = self._loads.pop(key, None) or _Loads()
        loads.last_used = now
        _expire(loads.spans, now)
        while (oldest := next(iter(self._loads))) != key and self._loads[oldest].last_used < now - RETENTION:
            del self._loads[oldest]
        return loads


def _expire(spans: deque[Any], now: float) -> None:
    while spans and spans[0][1] < now - RETENTION:
        spans.popleft()


def _outside_loads(loads: Iterable[list[float]], began: float, ended: float) -> list[tuple[float, float]]:
    """The parts of an interval during which no load of any caller was in flight."""
    gaps = []
    for start, end in sorted(loads):
        if end > began and start < ended:
            if start > began:
                gaps.append((began, start))
            began = end
    return [*gaps, (began, ended)] if began < ended else gaps
