"""Executes every operation of the cache once and records the outcomes, for tests of ACL rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest

from cache import CacheSettings, LockUnavailable, RedisCache
from cache.invalidation import invalidator as invalidation
from cache.loading import lease
from tests.inside import filler_of
from tests.real.redis.resp import Part
from tests.wait import until


class Server(Protocol):
    """What answers commands: a server, or a cluster, which sends each to the node of its key."""

    def cli(self, *command: Part) -> Any: ...

    def calls(self, command: str) -> int: ...


class Surface:
    """Execute every operation as one worker.

    Args:
        server: an empty server.
        url: its URL with the user to test.
        patience: seconds until background work counts as failed.
        hopeless: outcomes that cannot be waited for: these count as failed after a quarter of a second.
    """

    def __init__(self, server: Server, url: str, patience: float = 10.0, hopeless: Set[str] = frozenset()) -> None:
        self.server = server
        self.patience = patience
        self.hopeless = hopeless
        self.settings = CacheSettings(
            url=url, url_is_default=False, deadline=5.0, connect_wait=5.0, ttl_spread=0.0, near=frozenset({"profile"})
        )
        self.outcomes: dict[str, Any] = {}

    async def walk(self, patch: pytest.MonkeyPatch) -> dict[str, Any]:
        """The outcome of each operation by name. ``patch`` speeds up refreshes and fakes a large keyspace."""
        patch.setattr(lease, "RENEW_EVERY", 0.02)
        patch.setattr(invalidation, "SMALL", 0)
        async with self._cache() as cache:
            self.outcomes["connect"] = await cache.initialize()
            # A server whose emptiness cannot be checked is cleared first.
            await self._happens("trusted", lambda: not cache.invalidations.undelivered)
            for part in (self._values, self._near, self._lock, self._patterns):
                await part(cache)
            async with self._cache() as other:
                await self._load(cache, other)
            await self._one_user(cache)
        async with self._cache() as later:  # the previous cache has flushed its counters
            await later.initialize()
            await self._stats(later)
        return self.outcomes

    @asynccontextmanager
    async def _cache(self) -> AsyncIterator[RedisCache]:
        cache = RedisCache(settings=self.settings)
        try:
            yield cache
        finally:
            await cache.close()

    async def _values(self, cache: RedisCache) -> None:
        say = self.outcomes
        say["set"] = await cache.set("user:1:settings", {"voice": "warm"}, ttl=60)
        say["set nx"] = await cache.set("temp:s:a", 1, ttl=60, nx=True)
        say["set_many"] = await cache.set_many({"temp:s:b": 2, "system:config": 3}, ttl=60)
        say["incr"] = [await cache.incr("temp:s:n", 2, ttl=60) for _ in range(2)]
        say["get"] = await cache.get("user:1:settings")
        say["get_many"] = await cache.get_many(["temp:s:a", "temp:s:b"])
        say["exists"] = await cache.exists("temp:s:a", "temp:s:b", "temp:s:c")
        say["expire"] = await cache.expire("temp:s:a", 300)
        say["ttl"] = await cache.ttl("temp:s:b") in (59, 60)
        say["delete"] = await cache.delete("temp:s:a", "temp:s:b")
        say["health_check"] = await cache.health_check()

    async def _near(self, cache: RedisCache) -> None:
        self.server.cli("SET", "user:1:profile", "Ada", "PX", 60_000)
        self.outcomes["near read"] = await cache.get("user:1:profile")
        asked = self.server.calls("get")
        self.outcomes["near value"] = await cache.get("user:1:profile")
        self.outcomes["near"] = self.server.calls("get") == asked
        self.server.cli("SET", "user:1:profile", "Grace")

        async def seen() -> bool:
            return bool(await cache.get("user:1:profile") == "Grace")

        self.outcomes["near coherent"] = await self._happens("near coherent", seen)

    async def _lock(self, cache: RedisCache) -> None:
        say = self.outcomes
        try:
            async with cache.lock("greeting", "1"):
                say["lock"] = True
                try:
                    async with cache.lock("greeting", "1"):
                        say["lock twice"] = True
                except LockUnavailable:
                    say["lock twice"] = False
        except LockUnavailable:
            say["lock"] = False
        say["lock released"] = self.server.cli("EXISTS", "lock:greeting:1") == 0

    async def _patterns(self, cache: RedisCache) -> None:
        await cache.set("user:2:settings", 1)
        outcome = await cache.invalidate("user:*:settings")
        self.outcomes["invalidate"] = (outcome.deleted, outcome.complete)
        self.outcomes["invalidated"] = self.server.cli("EXISTS", "user:1:settings", "user:2:settings") == 0

    async def _load(self, cache: RedisCache, other: RedisCache) -> None:
        say = self.outcomes
        loads = 0
        key = "user:3:state"
        lease = f"lease:{{{key}}}"

        async def slow() -> str:
            nonlocal loads
            loads += 1
            self.server.cli("PEXPIRE", lease, 2000)  # a fresh value is not refreshed
            left: list[int] = [self.server.cli("PTTL", lease)]

            def renewed() -> bool:
                left.append(self.server.cli("PTTL", lease))
                return left[-1] > left[-2]

            say["lease renewed"] = await self._happens("lease renewed", renewed)
            return "calm"

        async def failing() -> str:
            raise ConnectionError

        await other.initialize()
        both = [one.get_or_load(key, slow, ttl=60, stale_for=600) for one in (cache, other)]
        say["get_or_load"] = await asyncio.gather(*both)
        say["loads"] = loads
        say["loaded"] = self.server.cli("GET", key)
        self.server.cli("DEL", key)  # as if it had expired
        try:
            say["last good value"] = await cache.get_or_load(key, failing, ttl=60, stale_for=600)
        except ConnectionError:
            say["last good value"] = None

        async def quick() -> str:
            return "merry"

        await cache.get_or_load("user:3:mood", quick, ttl=60)
        self.server.cli("SET", "user:3:mood", "old", "EX", 10)
        say["served before refresh"] = await cache.get_or_load("user:3:mood", quick, ttl=60, refresh_after=30)
        say["refreshed"] = await self._happens("refreshed", lambda: self.server.cli("GET", "user:3:mood") == "merry")
        say["lease left"] = self.server.cli("EXISTS", "lease:{user:3:mood}")

        async def nothing() -> None:
            return None

        await until(lambda: not filler_of(cache).loads)  # the refresh has ended, and another can begin
        self.server.cli("SET", "user:3:mood", "old", "EX", 10)
        await cache.get_or_load("user:3:mood", nothing, ttl=60, refresh_after=30)

        def removed() -> bool:
            return bool(self.server.cli("EXISTS", "user:3:mood") == 0)

        say["removed by none"] = await self._happens("removed by none", removed)

    async def _one_user(self, cache: RedisCache) -> None:
        say = self.outcomes
        await cache.set("user:4:memory:rex", "a dog", ttl=60)
        say["indexed"] = self.server.cli("SMEMBERS", "index:{4}")
        say["index expires"] = self.server.cli("TTL", "index:{4}") > 0
        self.server.cli("SET", "user:4:stray", "by hand")
        outcome = await cache.invalidate("*", user_id="4")
        say["clear_user_cache"] = outcome.complete
        say["cleared"] = self.server.cli("EXISTS", "user:4:memory:rex") == 0
        say["index pruned"] = self.server.cli("EXISTS", "index:{4}") == 0
        await cache.set("user:5:note", "ours", ttl=60)
        self.server.cli("SET", "user:6:note", "another application's")
        await cache.invalidate("user:*", own=True)
        say["own cleared"] = await self._happens("own cleared", lambda: not cache.invalidations.pending.patterns)
        say["others kept"] = self.server.cli("EXISTS", "user:6:note") == 1
        await cache.close()  # waits for the background scan
        say["stray cleared"] = self.server.cli("EXISTS", "user:4:stray") == 0

    async def _stats(self, cache: RedisCache) -> None:
        stats = await cache.get_stats()
        self.outcomes["fleet's statistics"] = stats["total_requests"] > 0
        self.outcomes["number of keys"] = stats["redis_keys"] > 0
        self.outcomes["memory"] = stats["redis_memory"] != "0B"

    async def _happens(self, name: str, condition: Callable[[], bool | Awaitable[bool]]) -> bool:
        try:
            await until(condition, timeout=min(0.25, self.patience) if name in self.hopeless else self.patience)
        except AssertionError:
            return False
        return True
