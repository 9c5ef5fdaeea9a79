"""One cache per event loop.

A Redis connection belongs to the loop it was opened in, and a worker may run several conversations in one process,
each with a loop of its own.

What one of these caches cannot deliver to Redis, because its connection is broken, the others would go on serving. So
each pending invalidation is merged into the others, in their loops: they obey at once, and deliver it over their own
connections. What a cache still has pending when it is closed is kept for the next one of the same Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from functools import partial
from threading import Lock
from weakref import WeakKeyDictionary

from .coherence.pending import PendingInvalidations
from .coherence.server_epoch import Revalidate
from .redis_cache import RedisCache

_revalidates: WeakKeyDictionary[asyncio.AbstractEventLoop, Revalidate | None] = WeakKeyDictionary()
_caches: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[RedisCache, asyncio.Task[bool]]] = WeakKeyDictionary()
_exported: dict[str, dict[int, PendingInvalidations]] = {}  # by address of a Redis and id of a closed cache
_lock = Lock()  # held to change these, and to read the caches of other loops


async def get_redis_cache() -> RedisCache:
    """Return the cache of the running loop; the first call makes it from the environment and initialises it.

    Returns within ``CACHE_CONNECT_WAIT_MS`` whether or not Redis has answered.

    Raises:
        CacheConfigError: the environment holds a setting that cannot be used.
    """
    made = _caches.get(asyncio.get_running_loop())
    cache, initialising = made if made is not None else _register(RedisCache())
    if not initialising.done():  # a second caller waits too, or its cache would not be connected yet
        await asyncio.shield(initialising)
    return cache


async def close_redis_cache() -> None:
    """Close the cache of the running loop, if there is one. The next ``get_redis_cache`` makes a new one."""
    made = _unregister(asyncio.get_running_loop())
    if made is not None:
        cache, initialising = made
        _export(cache)  # closing takes a while, and a cache that is made meanwhile needs this already
        try:
            await asyncio.wait({initialising})
            await cache.close()
        finally:
            _export(cache)


async def use_redis_cache(redis_url: str | None = None, *, enabled: bool | None = None) -> RedisCache:
    """Replace the running loop's cache by one with these arguments, and initialise it.

    Args:
        redis_url: as for RedisCache.
        enabled: as for RedisCache.

    Raises:
        CacheConfigError: a setting cannot be used.
    """
    await close_redis_cache()
    _register(RedisCache(redis_url, enabled=enabled))
    return await get_redis_cache()


def recall_with(revalidate: Revalidate | None) -> None:
    """As :meth:`RedisCache.recall_with`, for the cache of the running loop and every cache that replaces it."""
    loop = asyncio.get_running_loop()
    _revalidates[loop] = revalidate
    if loop in _caches:
        _caches[loop][0].recall_with(revalidate)


def _register(cache: RedisCache) -> tuple[RedisCache, asyncio.Task[bool]]:
    loop = asyncio.get_running_loop()
    cache.recall_with(_revalidates.get(loop))
    made = (cache, loop.create_task(cache.initialize(), name="cache-initialise"))
    with _lock:
        _caches[loop] = made
    address = cache.settings.safe_url
    with _lock:
        exported = _exported.pop(address, None)
    for pending in (exported or {}).values():
        cache.invalidations.merge(pending)
    cache.invalidations.on_enqueue(partial(_share, loop, address))
    for other, theirs in _others(loop, address):
        _call_in(other, partial(_share_all, theirs, loop, cache))
    return made


def _unregister(loop: asyncio.AbstractEventLoop) -> tuple[RedisCache, asyncio.Task[bool]] | None:
    with _lock:
        return _caches.pop(loop, None)


def _export(cache: RedisCache) -> None:
    """Leave what is pending to the other caches of the same Redis, and to the next one in this process."""
    address, pending = cache.settings.safe_url, cache.invalidations.export_pending()
    with _lock:  # before the others are notified, or a cache that is made at this moment would miss it
        here = _exported.setdefault(address, {})
        here.pop(id(cache), None)
        if any(pending):
            here[id(cache)] = pending
        if not here:
            del _exported[address]
    if any(pending):
        loop = asyncio.get_running_loop()
        _share(loop, address, pending)
        if loop in _caches and _caches[loop][0].settings.safe_url == address:  # made while this one was being closed
            _caches[loop][0].invalidations.merge(pending)


def _others(loop: asyncio.AbstractEventLoop, address: str) -> list[tuple[asyncio.AbstractEventLoop, RedisCache]]:
    """The caches of the same Redis in other loops. They are used only there, through :func:`_call_in`."""
    with _lock:
        made = [(other, cache) for other, (cache, _) in _caches.items()]
    return [(other, cache) for other, cache in made if other is not loop and cache.settings.safe_url == address]


def _call_in(loop: asyncio.AbstractEventLoop, do: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(do, context=Context())
    except RuntimeError:  # the loop was closed, and its cache was not
        _unregister(loop)


def _share(loop: asyncio.AbstractEventLoop, address: str, pending: PendingInvalidations) -> None:
    for other, cache in _others(loop, address):
        _call_in(other, partial(cache.invalidations.merge, pending))


def _share_all(cache: RedisCache, loop: asyncio.AbstractEventLoop, newcomer: RedisCache) -> None:
    """Merge what is pending by now into a cache that was made later."""
    if any(pending := cache.invalidations.pending):
        _call_in(loop, partial(newcomer.invalidations.merge, pending))
