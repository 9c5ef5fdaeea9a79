"""How many connections to Redis one process holds while it lives through one conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from cache import CacheSettings, RedisCache, keys
from tests.real.redis_server import RedisServer

from .bench import Bench
from .peers import DOCUMENTED

_USER = "ann"


async def run(bench: Bench) -> None:
    """The table, and the row of the issue."""
    bench.title(
        "Connections of one process, one conversation",
        "The most seen in CLIENT LIST, which is asked every few milliseconds meanwhile.",
    )
    server = bench.server()
    cache = RedisCache(settings=CacheSettings(url=server.url))
    await cache.initialize()
    mine = await _most(server, lambda: _conversation(cache))
    await cache.close()
    async with Redis.from_url(server.url, **DOCUMENTED) as naive:
        pooled = await _most(server, lambda: _reads(naive))
    rows = [["this layer: a whole conversation", str(mine)], ["naive: 50 reads at once, no more", str(pooled)]]
    bench.table(("who", "connections"), rows)
    bench.goal("connections of one process, one conversation", "<= 2", str(mine), mine <= 2)


async def _conversation(cache: RedisCache) -> None:
    """What a conversation does to the cache: start, 50 reads at once, writes, the tools, a lock, the end."""

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


async def _most(server: RedisServer, work: Callable[[], Awaitable[None]]) -> int:
    """The most connections there were at once, without the one that asks."""
    most, over = 0, False

    def look() -> int:
        return len(str(server.cli("CLIENT", "LIST")).splitlines()) - 1

    async def watch() -> None:
        nonlocal most
        while not over:
            most = max(most, await asyncio.to_thread(look))

    watching = asyncio.create_task(watch())
    await work()
    over = True
    await watching
    return max(most, look())
