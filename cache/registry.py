"""One cache per event loop, so that whoever asks for it gets the same.

A Redis connection belongs to the loop it was opened in, and a worker may run several conversations in one
process, each with a loop of its own.
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from .recall import Ask
from .redis_cache import RedisCache

_asks: WeakKeyDictionary[asyncio.AbstractEventLoop, Ask | None] = WeakKeyDictionary()
_caches: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[RedisCache, asyncio.Task[bool]]] = WeakKeyDictionary()


async def get_redis_cache() -> RedisCache:
    """The cache of the running loop, made from the environment and initialised by whoever asks first.

    Returns within ``CACHE_CONNECT_WAIT_MS`` whether or not Redis has answered.

    Raises:
        CacheConfigError: the environment holds a setting that cannot be used.
    """
    made = _caches.get(asyncio.get_running_loop())
    cache, initialising = made if made is not None else _keep(RedisCache())
    if not initialising.done():  # whoever asks second waits too, or would find a cache that is not there yet
        await asyncio.shield(initialising)
    return cache


async def close_redis_cache() -> None:
    """Close the cache of the running loop, if there is one. The next ``get_redis_cache`` makes a new one."""
    made = _caches.pop(asyncio.get_running_loop(), None)
    if made is not None:
        cache, initialising = made
        await asyncio.wait({initialising})
        await cache.close()


async def use_redis_cache(redis_url: str | None = None, *, enabled: bool | None = None) -> RedisCache:
    """Let the running loop's cache be this one instead of the environment's, and initialise it.

    Args:
        redis_url: as for RedisCache.
        enabled: as for RedisCache.
    """
    await close_redis_cache()
    _keep(RedisCache(redis_url, enabled=enabled))
    return await get_redis_cache()


def recall_with(ask: Ask | None) -> None:
    """As :meth:`RedisCache.recall_with`, for the cache of the running loop, now and whenever it is another one."""
    loop = asyncio.get_running_loop()
    _asks[loop] = ask
    if loop in _caches:
        _caches[loop][0].recall_with(ask)


def _keep(cache: RedisCache) -> tuple[RedisCache, asyncio.Task[bool]]:
    loop = asyncio.get_running_loop()
    cache.recall_with(_asks.get(loop))
    made = _caches[loop] = (cache, loop.create_task(cache.initialize(), name="cache-initialise"))
    return made
