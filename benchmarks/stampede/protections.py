"""The stampede protection of each library, set up as its documentation shows.

Pools are large enough for every caller, so that the protection is measured and not the pool.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from redis import ConnectionPool
from redis.asyncio import Redis

from benchmarks.peers import DOCUMENTED, OURS
from cache import CacheSettings, RedisCache

Load = Callable[[], Coroutine[Any, Any, Any]]
Protected = Callable[[str, Load], Awaitable[Any]]
"""Reads a key, and loads it on a miss."""
_ROOM = 250
_TTL = 3600
_LEASE = 5  # seconds: longer than the loader takes, as a lock requires


@asynccontextmanager
async def unprotected(url: str) -> AsyncIterator[Protected]:
    redis = Redis.from_url(url, decode_responses=True, **DOCUMENTED | {"max_connections": _ROOM})

    async def read(key: str, load: Load) -> Any:
        found = await redis.get(key)
        if found is not None:
            return json.loads(found)
        value = await load()
        await redis.set(key, json.dumps(value), ex=_TTL)
        return value

    async with redis:
        yield read


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Protected]:
    cache = RedisCache(settings=CacheSettings(url=url))
    await cache.initialize()

    async def read(key: str, load: Load) -> Any:
        return await cache.get_or_load(key, load, ttl=_TTL)

    try:
        yield read
    finally:
        await cache.close()


@asynccontextmanager
async def _cashews(url: str, kind: str) -> AsyncIterator[Protected]:
    from cashews import Cache

    cache = Cache()
    cache.setup(url, **DOCUMENTED | {"max_connections": _ROOM})
    loads: dict[str, Load] = {}
    decorate = cache(ttl=_TTL, key="{key}", lock=True) if kind == "lock" else cache.early(ttl=_TTL, key="{key}")

    @decorate
    async def cached(key: str) -> Any:
        return await loads[key]()

    async def read(key: str, load: Load) -> Any:
        loads[key] = load
        return await cached(key)

    try:
        yield read
    finally:
        await cache.close()


@asynccontextmanager
async def aiocache(url: str) -> AsyncIterator[Protected]:
    from aiocache import Cache, cached_stampede
    from aiocache.serializers import JsonSerializer

    place = urlsplit(url)
    loads: dict[str, Load] = {}

    @cached_stampede(
        lease=_LEASE,
        ttl=_TTL,
        key_builder=lambda f, key: key,
        cache=Cache.REDIS,
        serializer=JsonSerializer(),
        endpoint=place.hostname,
        port=place.port,
        pool_max_size=_ROOM,
    )
    async def cached(key: str) -> Any:
        return await loads[key]()

    async def read(key: str, load: Load) -> Any:
        loads[key] = load
        return await cached(key)

    try:
        yield read
    finally:
        await cached.cache.close()


@asynccontextmanager
async def dogpile(url: str) -> AsyncIterator[Protected]:
    from dogpile.cache import make_region

    region = make_region().configure(
        "dogpile.cache.redis",
        expiration_time=_TTL,
        arguments={
            "connection_pool": ConnectionPool.from_url(url, max_connections=_ROOM),
            "distributed_lock": True,
            "thread_local_lock": False,
            "lock_timeout": _LEASE,
        },
    )
    threads = ThreadPoolExecutor(_ROOM)
    loop = asyncio.get_running_loop()

    async def read(key: str, load: Load) -> Any:
        def create() -> Any:  # runs in a thread; the loader runs in the loop
            return asyncio.run_coroutine_threadsafe(load(), loop).result()

        return await loop.run_in_executor(threads, region.get_or_create, key, create)

    try:
        yield read
    finally:
        threads.shutdown()


PROTECTIONS: dict[str, Callable[[str], AbstractAsyncContextManager[Protected]]] = {
    OURS: ours,
    "naive: get, load, set": unprotected,
    "cashews, lock=True": lambda url: _cashews(url, "lock"),
    "cashews, early": lambda url: _cashews(url, "early"),
    "aiocache, cached_stampede": aiocache,
    "dogpile, distributed_lock": dogpile,
}
