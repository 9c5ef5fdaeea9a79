"""The clients compared, each set up as its documentation shows, with the documented pool where it has one.

Each stores values in its own format; a value is written and read by the same library.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis

from benchmarks.comparison import NAIVE
from cache import CacheSettings, RedisCache

OURS, NEAR = "this layer", "this layer, near cache"
POOL = 50
DOCUMENTED: dict[str, Any] = {
    "max_connections": POOL,
    "socket_connect_timeout": 5,
    "socket_timeout": 5,
    "retry_on_timeout": True,
    "health_check_interval": 30,
}
_TTL = 3600
_PEER_TIMEOUT = 5.0  # seconds within which a peer must store and read one value


@dataclass(frozen=True, slots=True)
class Client:
    """A connected client of one library."""

    get: Callable[[str], Awaitable[Any]]
    put: Callable[[str, Any], Awaitable[Any]]


Open = Callable[[str], AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def naive(url: str) -> AsyncIterator[Client]:
    """``json.loads(await redis.get(key))``."""
    redis = Redis.from_url(url, decode_responses=True, **DOCUMENTED)

    async def get(key: str) -> Any:
        return json.loads(await redis.get(key))

    async def put(key: str, value: Any) -> Any:
        return await redis.set(key, json.dumps(value), ex=_TTL)

    async with redis:
        yield Client(get, put)


@asynccontextmanager
async def _cache(url: str, near: frozenset[str]) -> AsyncIterator[Client]:
    cache = RedisCache(settings=CacheSettings(url=url, near=near))
    if not await cache.initialize():
        raise ConnectionError("the cache did not connect")

    async def put(key: str, value: Any) -> Any:
        return await cache.set(key, value, ttl=_TTL)

    try:
        yield Client(cache.get, put)
    finally:
        await cache.close()


def ours(url: str) -> AbstractAsyncContextManager[Client]:
    """This layer with default settings."""
    return _cache(url, frozenset())


def ours_near(url: str) -> AbstractAsyncContextManager[Client]:
    """This layer with profiles and greetings in the near cache."""
    return _cache(url, frozenset({"profile", "greeting_instructions"}))


@asynccontextmanager
async def _cashews(url: str, **options: Any) -> AsyncIterator[Client]:
    from cashews import Cache

    cache = Cache()
    cache.setup(url, **DOCUMENTED, **options)

    async def put(key: str, value: Any) -> Any:
        return await cache.set(key, value, expire=_TTL)

    try:
        yield Client(cache.get, put)
    finally:
        await cache.close()


def cashews(url: str) -> AbstractAsyncContextManager[Client]:
    return _cashews(url)


def cashews_near(url: str) -> AbstractAsyncContextManager[Client]:
    return _cashews(url, client_side=True)


def cashews_near_resp2(url: str) -> AbstractAsyncContextManager[Client]:
    """Cashews parses invalidations only in RESP2, which redis-py must be configured to use."""
    return _cashews(url, client_side=True, protocol=2)


@asynccontextmanager
async def aiocache(url: str) -> AsyncIterator[Client]:
    from aiocache import Cache
    from aiocache.serializers import JsonSerializer

    place = urlsplit(url)
    cache = Cache(
        Cache.REDIS, endpoint=place.hostname, port=place.port, serializer=JsonSerializer(), pool_max_size=POOL
    )

    async def put(key: str, value: Any) -> Any:
        return await cache.set(key, value, ttl=_TTL)

    try:
        yield Client(cache.get, put)
    finally:
        await cache.close()


@asynccontextmanager
async def _coredis(url: str, **options: Any) -> AsyncIterator[Client]:
    import coredis

    async with coredis.Redis.from_url(url, decode_responses=True, **options) as redis:

        async def get(key: str) -> Any:
            return json.loads(await redis.get(key))

        async def put(key: str, value: Any) -> Any:
            return await redis.set(key, json.dumps(value), ex=_TTL)

        yield Client(get, put)


def coredis(url: str) -> AbstractAsyncContextManager[Client]:
    return _coredis(url)


@asynccontextmanager
async def coredis_near(url: str) -> AsyncIterator[Client]:
    from coredis.patterns.cache import LRUCache

    async with _coredis(url, cache=LRUCache()) as client:
        yield client


@asynccontextmanager
async def _glide(url: str, cache: Mapping[str, Any] | None) -> AsyncIterator[Client]:
    from glide import ExpirySet, ExpiryType, GlideClient, GlideClientConfiguration, NodeAddress
    from glide_shared.cache import ClientSideCache

    place = urlsplit(url)
    redis = await GlideClient.create(
        GlideClientConfiguration(
            [NodeAddress(place.hostname or "localhost", place.port or 6379)],
            request_timeout=5000,
            client_side_cache=ClientSideCache.create(16 << 10, _TTL * 1000, **cache) if cache is not None else None,
        )
    )

    async def get(key: str) -> Any:
        return json.loads(await redis.get(key))

    async def put(key: str, value: Any) -> Any:
        return await redis.set(key, json.dumps(value), expiry=ExpirySet(ExpiryType.SEC, _TTL))

    try:
        yield Client(get, put)
    finally:
        await redis.close()


def glide(url: str) -> AbstractAsyncContextManager[Client]:
    return _glide(url, None)


def glide_near(url: str) -> AbstractAsyncContextManager[Client]:
    return _glide(url, {})


def glide_tracking(url: str) -> AbstractAsyncContextManager[Client]:
    return _glide(url, {"server_assisted": True})


@asynccontextmanager
async def dogpile(url: str) -> AsyncIterator[Client]:
    """A blocking library, called in threads as an asyncio program must."""
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.redis", expiration_time=_TTL, arguments={"url": url})
    threads = ThreadPoolExecutor(POOL)
    loop = asyncio.get_running_loop()

    async def get(key: str) -> Any:
        return await loop.run_in_executor(threads, region.get, key)

    async def put(key: str, value: Any) -> Any:
        return await loop.run_in_executor(threads, region.set, key, value)

    try:
        yield Client(get, put)
    finally:
        threads.shutdown()


REMOTE: dict[str, Open] = {
    NAIVE: naive,
    OURS: ours,
    "cashews": cashews,
    "aiocache": aiocache,
    "coredis": coredis,
    "valkey-glide": glide,
    "dogpile, in threads": dogpile,
}
"""Clients that read from Redis every time."""
LOCAL: dict[str, Open] = {
    NEAR: ours_near,
    "coredis, tracking": coredis_near,
    "valkey-glide, server-assisted cache": glide_tracking,
    "valkey-glide, client-side cache": glide_near,
    "cashews, client_side": cashews_near,
    "cashews, client_side, protocol=2": cashews_near_resp2,
}
"""Clients that keep values in the process."""


async def open_all(stack: AsyncExitStack, url: str, openers: Mapping[str, Open]) -> tuple[dict[str, Client], list[str]]:
    """Connect the clients that work here.

    Returns:
        The clients by name, and a line about each that is not available.
    """
    for name in ("glide", "cashews", "dogpile", "aiocache", "coredis"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are counted, not printed
    clients, unavailable = {}, []
    for name, opener in openers.items():
        try:
            async with asyncio.timeout(_PEER_TIMEOUT):
                client = await stack.enter_async_context(opener(url))
                await client.put("user:0:profile", {"a": [1, "b"]})
                if await client.get("user:0:profile") != {"a": [1, "b"]}:
                    raise ValueError("it gave back something else than it was given")
        except ImportError as problem:
            unavailable.append(f"{name}: not installed ({problem.name})")
        except Exception as problem:
            unavailable.append(f"{name}: does not work here ({type(problem).__name__}: {str(problem)[:100]})")
        else:
            clients[name] = client
    return clients, unavailable
