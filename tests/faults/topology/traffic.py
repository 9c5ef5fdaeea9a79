"""What three processes do with one Redis while it fails, and whether what they read was right.

One writes and deletes, and reads through. The others read, one of them with the near cache. A value is the version of
its key. A read must not return an older version than was acknowledged when it began: to the writer at the return of its
call; to the others by Redis. The near cache learns of a change a moment later.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from cache import RedisCache
from tests.faults.topology.places import Place
from tests.wait import until

CHANGING: Final = [f"user:busy{number}:profile" for number in range(60)]
QUIET: Final = [f"user:quiet{number}:profile" for number in range(60)]
"""Stored before the fault and never changed: those that do not lie where it is must be found all the time."""
DOOMED: Final = [f"user:doomed{number}:profile" for number in range(30)]
"""Stored before the fault, and deleted once replication has ended: a failover loses that."""
NEAR_DELAY: Final = 0.3  # seconds after which the near cache of another process must know of a change


class Floor:
    """The version of each key that a reader must see at least.

    Args:
        delay: seconds from the acknowledgement until then.
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self._now = dict.fromkeys(CHANGING, 0)
        self._coming: deque[tuple[float, str, int]] = deque()

    def raise_to(self, key: str, version: int) -> None:
        self._coming.append((time.perf_counter() + self.delay, key, version))

    def of(self, key: str) -> int:
        while self._coming and self._coming[0][0] <= time.perf_counter():
            _, changed, version = self._coming.popleft()
            self._now[changed] = version
        return self._now[key]


class Traffic:
    """The calls of three caches, until stopped.

    Args:
        caches: the writer, a reader, and a reader with the near cache.
        place: where their data are.
        grace: seconds for which a replaced server may still be read.

    Attributes:
        reads: how many were checked.
        stale: those that returned less than was acknowledged.
        healthy: reads of quiet keys that lie where no fault is, and how many of them missed.
    """

    def __init__(self, caches: list[RedisCache], place: Place, grace: float) -> None:
        self.writer, self.reader, self.near = caches
        self.reads = 0
        self.stale: list[str] = []
        self.healthy = [0, 0]
        self._place = place
        self._truth = dict.fromkeys(CHANGING, 0)
        self._deleted: dict[str, float] = {}  # when the doomed keys were
        self._floors = {self.writer: Floor(0.0), self.reader: Floor(grace), self.near: Floor(NEAR_DELAY + grace)}
        self._tasks: list[asyncio.Task[None]] = []
        self._began = time.perf_counter()

    def start(self) -> None:
        work = [self._write(), self._read_quiet(self.reader), self._read_quiet(self.near)]
        work += [self._read(cache, start) for start, cache in enumerate(self._floors)]
        work += [self._delete_doomed(), *map(self._read_doomed, self._floors)]
        self._tasks = [asyncio.create_task(each) for each in work]

    async def stop(self) -> None:
        """Stop. The tasks' own errors propagate."""
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if not isinstance(outcome, asyncio.CancelledError):
                raise outcome or AssertionError("it ended early")

    async def _write(self) -> None:
        for number, key in enumerate(_again(CHANGING, 7)):
            version = self._truth[key] = self._truth[key] + 1
            if number % 2:
                await self.writer.delete(key)
            else:
                await self.writer.set(key, version, ttl=600)
            self._floors[self.writer].raise_to(key, version)
            if not self.writer.invalidations.undelivered:
                for cache in (self.reader, self.near):
                    self._floors[cache].raise_to(key, version)
            await asyncio.sleep(0.02)

    async def _read(self, cache: RedisCache, start: int) -> None:
        for key in _again(CHANGING[start * 20 :] + CHANGING[: start * 20], 11):
            floor = self._floors[cache].of(key)

            async def load(key: str = key) -> int:
                return self._truth[key]

            version = await cache.get_or_load(key, load, ttl=600, stale_for=600)
            self.reads += 1
            if version < floor:
                self._note_stale(cache, f"{key} {version} instead of {floor}")
            await asyncio.sleep(0.01)

    async def _delete_doomed(self) -> None:
        await until(lambda: self._place.unreplicated, math.inf)
        for key in DOOMED:
            if await self.writer.delete(key):
                self._deleted[key] = time.perf_counter()
        await asyncio.Event().wait()

    async def _read_doomed(self, cache: RedisCache) -> None:
        delay = self._floors[cache].delay
        for key in _again(DOOMED, 7):
            gone = self._deleted.get(key, math.inf) + delay < time.perf_counter()
            if await cache.get(key) is not None and gone:
                self._note_stale(cache, f"{key}, which was deleted")
            self.reads += 1
            await asyncio.sleep(0.01)

    def _note_stale(self, cache: RedisCache, what: str) -> None:
        name = {self.writer: "the writer", self.reader: "a reader", self.near: "a near reader"}[cache]
        self.stale.append(f"{name} at {time.perf_counter() - self._began:.2f} s: {what}")

    async def _read_quiet(self, cache: RedisCache) -> None:
        for key in _again(QUIET, 13):
            if not self._place.fails(key):
                value = await cache.get(key)
                self.healthy[0] += 1
                self.healthy[1] += value is None
            else:
                await cache.get(key)
            await asyncio.sleep(0.005)


def _again(names: list[str], step: int) -> Iterator[str]:
    return (names[number * step % len(names)] for number in itertools.count())
