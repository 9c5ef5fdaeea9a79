"""A server with many keys, a latency probe on it, and the usual SCAN + DEL for comparison."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from benchmarks.bench import Bench
from benchmarks.child import Child
from benchmarks.figures import Spread, number, percentile
from benchmarks.invalidation.latency_probe import KEY as PROBE_KEY
from benchmarks.peers import DOCUMENTED
from cache import CacheSettings, RedisCache
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

# ARGV: first, last. Runs in the server: a million SETs over a socket take ten times as long.
_FILL = """
for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  redis.call('SET', 'user:' .. i .. ':profile', 'Name: a user with one visit', 'EX', 3600)
end
"""
_BATCH = 2_000  # keys per script call: with more, the cache would treat the server as silent


@dataclass(frozen=True, slots=True)
class Timing:
    """Timing of one operation under the latency probe.

    Attributes:
        removed: number of keys removed.
        took: seconds of wall time.
        client: CPU seconds of this process.
        server: CPU seconds of the server.
        longest_command: seconds of the longest command in the server, by its SLOWLOG.
        probe_times: seconds of each GET of the probe meanwhile.
    """

    removed: int
    took: float
    client: float
    server: float
    longest_command: float
    probe_times: list[float]

    @property
    def longest(self) -> float:
        """Seconds of the slowest GET of the probe."""
        return max(self.probe_times, default=0.0)


@dataclass(frozen=True, slots=True)
class Keyspace:
    """A server that holds many users' profiles.

    Attributes:
        server: the server.
        redis: a client with the documented settings.
        cache: this layer.
        probe: the process of the latency probe.
    """

    server: RedisServer
    redis: Redis
    cache: RedisCache
    probe: Child

    async def fill(self, count: int) -> None:
        """Reset the keyspace to ``count`` users with a profile each."""
        async with self.redis.pipeline(transaction=True) as emptied:  # the probe's key must always exist
            emptied.flushall().set(PROBE_KEY, "OK")
            await emptied.execute()
        for first in range(0, count, _BATCH):
            await self.redis.eval(_FILL, 0, first, min(first + _BATCH, count) - 1)
        if (kept := await self.redis.dbsize()) < count:
            raise RuntimeError(f"of {count} keys the server keeps {kept}: maxmemory is too small")
        await until(self.cache.health_check)

    async def measured(self, work: Awaitable[Any]) -> Timing:
        """Measure ``work``, which returns the number of keys removed or None, under the latency probe."""
        await self.redis.slowlog_reset()
        server, client = await self._server_cpu(), time.process_time()
        await self.probe.ask("begin")
        began = time.perf_counter()
        removed = await work
        took = time.perf_counter() - began
        probe_times = await self.probe.ask("end")
        client, server = time.process_time() - client, await self._server_cpu() - server
        slow = [entry["duration"] / 1e6 for entry in await self.redis.slowlog_get(10_000)]
        return Timing(removed or 0, took, client, server, max(slow, default=0.0), probe_times)

    async def idle(self) -> Timing:
        """Measure two seconds with only the probe active."""
        return await self.measured(asyncio.sleep(2.0))

    async def _server_cpu(self) -> float:
        used = await self.redis.info("cpu")
        return float(used["used_cpu_sys"] + used["used_cpu_user"])

    async def naive_delete(self, pattern: str, *, every: bool) -> int:
        """SCAN with count=100, then one DEL of everything (``every``), as is common, or a DEL per page."""
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
    """Start a server with an empty keyspace, a cache and the latency probe."""
    server = bench.server()
    async with AsyncExitStack() as stack:
        # One DEL of a million names takes longer than the documented timeout of five seconds.
        redis = await stack.enter_async_context(
            Redis.from_url(server.url, decode_responses=True, **DOCUMENTED | {"socket_timeout": 60})
        )
        await redis.set(PROBE_KEY, "OK")
        await redis.config_set("slowlog-log-slower-than", 200)
        await redis.config_set("slowlog-max-len", 10_000)
        cache = RedisCache(settings=CacheSettings(url=server.url))
        await cache.initialize()
        stack.push_async_callback(cache.close)
        probe = await stack.enter_async_context(Child("invalidation.latency_probe", str(server.port)))
        await probe.receive()
        yield Keyspace(server, redis, cache, probe)


PROBE_COLUMNS = ("GET p50 ms", "p99 ms", "longest ms", "longest command ms")


def probe_columns(timings: Sequence[Timing]) -> list[str]:
    """The cells of ``PROBE_COLUMNS``: latencies of the probe, and the longest command."""
    probe_times = [wait for timing in timings for wait in timing.probe_times]
    longest = [
        Spread.of(getattr(timing, figure) * 1000 for timing in timings) for figure in ("longest", "longest_command")
    ]
    return [*(number(percentile(probe_times, percent) * 1000) for percent in (50, 99)), *map(str, longest)]


def above_idle(timings: Sequence[Timing], idle: Sequence[Timing]) -> Spread:
    """Milliseconds by which the probe's longest GET exceeded the longest in the idle seconds of its round."""
    return Spread.of((timing.longest - idle_run.longest) * 1000 for timing, idle_run in zip(timings, idle, strict=True))
