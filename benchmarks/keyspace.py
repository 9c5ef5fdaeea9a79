"""A server full of keys, somebody else who reads from it, and the way everybody deletes by pattern."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from cache import CacheSettings, RedisCache
from tests.real.redis_server import RedisServer
from tests.wait import until

from .bench import Bench
from .bystander import KEY as BYSTANDER_KEY
from .child import Child
from .figures import Spread, number, percentile
from .peers import DOCUMENTED

# ARGV: first, last. In the server, because a million SETs over a socket take ten times as long.
_FILL = """
for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  redis.call('SET', 'user:' .. i .. ':profile', 'Name: somebody who was here once', 'EX', 3600)
end
"""
_BATCH = 2_000  # keys: more at once and the cache would take the server for silent


@dataclass(frozen=True, slots=True)
class Turn:
    """One piece of work while somebody else was reading.

    Attributes:
        removed: what the work returned.
        took: seconds.
        client: seconds of processor in this process.
        server: seconds of processor in the server.
        held: seconds that the longest command took inside the server, by its SLOWLOG.
        waits: seconds that each of somebody else's GETs took meanwhile.
    """

    removed: int
    took: float
    client: float
    server: float
    held: float
    waits: list[float]

    @property
    def longest(self) -> float:
        """Seconds that the slowest of somebody else's GETs took."""
        return max(self.waits, default=0.0)


@dataclass(frozen=True, slots=True)
class Keyspace:
    """One server with many users' profiles in it.

    Attributes:
        server: the server.
        redis: a client with the documented settings.
        cache: this layer.
        bystander: the process of somebody else.
    """

    server: RedisServer
    redis: Redis
    cache: RedisCache
    bystander: Child

    async def fill(self, count: int) -> None:
        """Let there be so many users, each with a profile."""
        async with self.redis.pipeline(transaction=True) as emptied:  # the bystander's own key is always there
            emptied.flushall().set(BYSTANDER_KEY, "OK")
            await emptied.execute()
        for first in range(0, count, _BATCH):
            await self.redis.eval(_FILL, 0, first, min(first + _BATCH, count) - 1)
        await until(self.cache.health_check)

    async def watched(self, work: Awaitable[Any]) -> Turn:
        """Let ``work`` be done while somebody else reads. It returns how many keys it removed, or nothing."""
        await self.redis.slowlog_reset()
        server, client = await self._server_cpu(), time.process_time()
        await self.bystander.ask("begin")
        began = time.perf_counter()
        removed = await work
        took = time.perf_counter() - began
        waits = await self.bystander.ask("end")
        client, server = time.process_time() - client, await self._server_cpu() - server
        slow = [entry["duration"] / 1e6 for entry in await self.redis.slowlog_get(10_000)]
        return Turn(removed or 0, took, client, server, max(slow, default=0.0), waits)

    async def idle(self) -> Turn:
        """Nothing but somebody else's reading, for two seconds."""
        return await self.watched(asyncio.sleep(2.0))

    async def _server_cpu(self) -> float:
        used = await self.redis.info("cpu")
        return float(used["used_cpu_sys"] + used["used_cpu_user"])

    async def naive_delete(self, pattern: str, *, every: bool) -> int:
        """SCAN with count=100, then DEL: of everything at the end, as it is mostly written, or page by page."""
        found: list[Any] = []
        cursor, removed = 0, 0
        while True:
            cursor, page = await self.redis.scan(cursor, match=pattern, count=100)
            found += page
            if found and not every:
                removed += await self.redis.delete(*found)
                found = []
            if cursor == 0:
                break
        return removed + (await self.redis.delete(*found) if found else 0)


@asynccontextmanager
async def keyspace(bench: Bench) -> AsyncIterator[Keyspace]:
    """An empty one."""
    server = bench.server()
    async with AsyncExitStack() as stack:
        # A million names in one DEL take longer to send and to do than the documented five seconds allow.
        redis = await stack.enter_async_context(
            Redis.from_url(server.url, decode_responses=True, **DOCUMENTED | {"socket_timeout": 60})
        )
        await redis.set(BYSTANDER_KEY, "OK")
        await redis.config_set("slowlog-log-slower-than", 200)
        await redis.config_set("slowlog-max-len", 10_000)
        cache = RedisCache(settings=CacheSettings(url=server.url))
        await cache.initialize()
        stack.push_async_callback(cache.close)
        bystander = await stack.enter_async_context(Child("bystander", str(server.port)))
        await bystander.hear()
        yield Keyspace(server, redis, cache, bystander)


WAITS = ("GET p50 ms", "p99 ms", "longest ms", "longest command ms")


def others(turns: Sequence[Turn]) -> list[str]:
    """The columns of ``WAITS``: somebody else's GETs, and for how long the server was held at most."""
    waits = [wait for turn in turns for wait in turn.waits]
    longest = [Spread.of(getattr(turn, figure) * 1000 for turn in turns) for figure in ("longest", "held")]
    return [*(number(percentile(waits, percent) * 1000) for percent in (50, 99)), *map(str, longest)]


def above_idle(turns: Sequence[Turn], idle: Sequence[Turn]) -> Spread:
    """Milliseconds by which somebody else's longest GET was above the longest in the idle seconds of its round."""
    return Spread.of((turn.longest - quiet.longest) * 1000 for turn, quiet in zip(turns, idle, strict=True))
