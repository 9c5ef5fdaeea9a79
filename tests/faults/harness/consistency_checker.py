"""Reads and writes data of other users during a fault and checks every value read.

A value contains its key and a version. A write is acknowledged when the cache call that announced it has returned; a
read that begins later must not return an older version, and no read may return another key's value.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from cache import RedisCache, keys

USERS = tuple(f"checked-{number}" for number in range(4))
TTL = 60


class ConsistencyChecker:
    """Uses ``cache`` about three hundred times a second until stopped. ``wrong_values`` describes invalid reads."""

    def __init__(self, cache: RedisCache, seed: int) -> None:
        self.wrong_values: list[str] = []
        self.reads = 0
        self._cache = cache
        self._rng = random.Random(seed)
        self._latest = dict.fromkeys(map(keys.profile, USERS), 0)
        self._acknowledged = dict(self._latest)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._latest)

    def start(self) -> None:
        operations = [self._read_any, self._read_any, self._write, self._other_operation]
        self._tasks = [asyncio.create_task(self._repeat(operation)) for operation in operations]

    async def stop(self) -> None:
        """Stop the tasks. Their own errors propagate."""
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if not isinstance(result, asyncio.CancelledError):
                raise result or AssertionError("a checker task ended early")

    def check_value(self, key: str, value: Any, floor: int) -> None:
        """Check a value read for ``key`` by a call that began when version ``floor`` was acknowledged."""
        self.reads += 1
        version = _version(key, str(value))
        if version is None or not floor <= version <= self._latest[key]:
            self.wrong_values.append(f"{key}: {str(value)[:40]!r} instead of {floor} to {self._latest[key]}")

    def is_latest(self, key: str, raw: str | None) -> bool:
        """Whether ``raw``, the value of ``key`` in Redis, is absent or the latest version."""
        return raw in (None, self._value(key))

    def is_versioned(self, key: str, raw: str) -> bool:
        """Whether the checker wrote ``raw`` to ``key``, in whatever version."""
        return _version(key, raw) is not None

    async def _repeat(self, operation: Callable[[], Awaitable[None]]) -> None:
        while True:
            await operation()
            await asyncio.sleep(self._rng.uniform(0.005, 0.02))

    def _value(self, key: str) -> str:
        return f"{key} {self._latest[key]}"

    async def read(self, key: str) -> None:
        """Read a value through the cache and check it."""
        floor = self._acknowledged[key]

        async def load() -> str:
            value = self._value(key)
            await asyncio.sleep(self._rng.choice((0, 0.001, 0.003)))
            return value

        self.check_value(key, await self._cache.get_or_load(key, load, ttl=TTL, stale_for=TTL), floor)

    async def _read_any(self) -> None:
        await self.read(self._rng.choice(self.keys))

    async def _write(self) -> None:
        key = self._rng.choice(self.keys)
        version = self._latest[key] = self._latest[key] + 1
        if self._rng.random() < 0.5:
            await self._cache.delete(key)
        else:
            await self._cache.set(key, self._value(key), ttl=TTL)
        self._acknowledged[key] = version

    async def _other_operation(self) -> None:
        cache, key, user = self._cache, self._rng.choice(self.keys), self._rng.choice(USERS)
        floors = dict(self._acknowledged)
        match self._rng.randrange(8):
            case 0:
                for name, value in (await cache.get_many(self.keys)).items():
                    self.check_value(name, value, floors[name])
            case 1:
                if (value := await cache.get(key)) is not None:
                    self.check_value(key, value, floors[key])
            case 2:
                await cache.set_many({keys.memory(user, "m"): "something", keys.temp("t", user): 1}, ttl=TTL)
            case 3:
                await cache.expire(key, TTL)
            case 4:
                await cache.ttl(key)
            case 5:
                await cache.exists(*self.keys)
            case 6:
                await cache.clear_user_cache(user)
            case 7:
                await cache.get_stats()


def _version(key: str, value: str) -> int | None:
    """The version that a value of this key has; None if it is no such value."""
    owner, _, version = value.rpartition(" ")
    return int(version) if owner == key and version.isdecimal() else None
