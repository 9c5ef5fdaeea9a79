"""Number of connections to Redis of one process during one conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from benchmarks.bench import Bench
from benchmarks.peers import DOCUMENTED
from cache import CacheSettings, RedisCache, keys
from tests.real.redis.redis_server import RedisServer

_USER = "ann"


async def run(bench: Bench) -> None:
    """Print the table and record the target."""
    bench.title(
        "Connections of one process, one conversation",
        "The maximum in CLIENT LIST, polled every few milliseconds.",
    )
    server = bench.server()
    cache = RedisCache(settings=CacheSettings(url=server.url))
    await cache.initialize()
    ours = await _peak_connections(server, lambda: _conversation(cache))
    await cache.close()
    async with Redis.from_url(server.url, **DOCUMENTED) as naive:
        pooled = await _peak_connections(server, lambda: _reads(naive))
    rows = [["this layer: a whole conversation", str(ours)], ["naive: 50 concurrent reads only", str(pooled)]]
    bench.table(("client", "connections"), rows)
    bench.target("connections of one process, one conversation", "<= 2", str(ours), ours <= 2)


async def _conversation(cache: RedisCache) -> None:
    """The cache calls of a conversation: start, 50 concurrent reads, writes, the tools, a lock, the end."""

    async def load() -> str:
        await asyncio.sleep(0.01)
        return "something about Ann"

    profile, greeting = keys.profile(_USER), keys.greeting_instructions(_USER)
    for _ in range(3):
        await asyncio.gather(*(cache.get_or_load(key, load, ttl=key.ttl) for key in (profile, greeting)))
        await asyncio.gather(*(cache.get(profile) for _ in range(50)))
        await cache.set_many({f"temp:session:{number}": number for number in range(50)}, ttl=60)
        await cache.get_stats()
        async with cache.lock("summary", _USER):
            await cache.delete(greeting)
        await cache.invalidate_pattern("user:*:profile")
        await cache.clear_user_cache(_USER)
        await cache.health_check()


async def _reads(naive: Redis) -> None:
    for _ in range(20):
        await asyncio.gather(*(naive.get("user:ann:profile") for _ in range(50)))


async def _peak_connections(server: RedisServer, work: Callable[[], Awaitable[None]]) -> int:
    """The maximum number of connections, without the polling one."""
    peak, done = 0, False

    def count() -> int:
        return len(str(server.cli("CLIENT", "LIST")).splitlines()) - 1

    async def poll() -> None:
        nonlocal peak
        while not done:
            peak = max(peak, await asyncio.to_thread(count))

    polling = asyncio.create_task(poll())
    await work()
    done = True
    await polling
    return max(peak, count())
