"""Other people's data, read and written all the time, and a record of what was right at each moment.

Every value says whose it is and which version. A write is acknowledged when the call that told the cache of it has
returned; whoever asks after that must not be given an older version, nor ever a value of somebody else.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from cache import RedisCache, keys

USERS = tuple(f"witness-{number}" for number in range(4))
TTL = 60


class Witness:
    """Uses ``cache`` until stopped, about three hundred times a second. ``wrong`` says what it should not have got."""

    def __init__(self, cache: RedisCache, seed: int) -> None:
        self.wrong: list[str] = []
        self.reads = 0
        self._cache = cache
        self._draw = random.Random(seed)
        self._truth = dict.fromkeys(map(keys.profile, USERS), 0)
        self._told = dict(self._truth)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._truth)

    def start(self) -> None:
        doings = [self._read, self._read, self._write, self._do_something_else]
        self._tasks = [asyncio.create_task(self._again_and_again(doing)) for doing in doings]

    async def stop(self) -> None:
        """Raises what went wrong with the witness itself."""
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        for outcome in outcomes:
            if not isinstance(outcome, asyncio.CancelledError):
                raise outcome or AssertionError("a witness went home")

    def judge(self, key: str, value: Any, floor: int) -> None:
        """``value`` was served for ``key`` to somebody who asked when ``floor`` had been acknowledged."""
        self.reads += 1
        owner, _, version = str(value).rpartition(" ")
        if owner != key or not version.isdecimal() or not floor <= int(version) <= self._truth[key]:
            self.wrong.append(f"{key}: {str(value)[:40]!r} instead of {floor} to {self._truth[key]}")

    async def check(self, key: str, raw: str | None) -> bool:
        """Whether what Redis holds for ``key`` is nothing, or the newest version."""
        return raw in (None, self._value(key))

    async def _again_and_again(self, doing: Callable[[], Awaitable[None]]) -> None:
        while True:
            await doing()
            await asyncio.sleep(self._draw.uniform(0.005, 0.02))

    def _value(self, key: str) -> str:
        return f"{key} {self._truth[key]}"

    async def _read(self) -> None:
        key = self._draw.choice(self.keys)
        floor = self._told[key]

        async def load() -> str:
            value = self._value(key)
            await asyncio.sleep(self._draw.choice((0, 0.001, 0.003)))
            return value

        self.judge(key, await self._cache.get_or_load(key, load, ttl=TTL, stale_for=TTL), floor)

    async def _write(self) -> None:
        key = self._draw.choice(self.keys)
        version = self._truth[key] = self._truth[key] + 1
        if self._draw.random() < 0.5:
            await self._cache.delete(key)
        else:
            await self._cache.set(key, self._value(key), ttl=TTL)
        self._told[key] = version

    async def _do_something_else(self) -> None:
        cache, key, user = self._cache, self._draw.choice(self.keys), self._draw.choice(USERS)
        floors = dict(self._told)
        match self._draw.randrange(8):
            case 0:
                for name, value in (await cache.get_many(self.keys)).items():
                    self.judge(name, value, floors[name])
            case 1:
                if (value := await cache.get(key)) is not None:
                    self.judge(key, value, floors[key])
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
