"""One cache per event loop.

A Redis connection belongs to the loop it was opened in, and a worker may run several conversations in one process,
each with a loop of its own.

What one of these caches cannot deliver to Redis, because its connection is broken, the others must not serve either. So
the caches of one Redis share their pending invalidations: all obey them at once, each delivers them over its own
connection, and what is pending when a cache is closed stays for the others and the next.
"""

from __future__ import annotations

import asyncio
import os
from contextvars import Context
from threading import Lock
from weakref import WeakKeyDictionary

from .coherence.pending_entries import PendingEntries
from .coherence.server_epoch import Revalidate
from .redis_cache import RedisCache
from .settings import CacheSettings

_revalidates: WeakKeyDictionary[asyncio.AbstractEventLoop, Revalidate | None] = WeakKeyDictionary()
_caches: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[RedisCache, asyncio.Task[bool]]] = WeakKeyDictionary()
_pending: dict[str, PendingEntries] = {}  # by address of a Redis
_lock = Lock()  # held to change the caches: loops run in threads


async def get_redis_cache() -> RedisCache:
    """Return the cache of the running loop; the first call makes it from the environment and initialises it.

    Returns within ``CACHE_CONNECT_WAIT_MS`` whether or not Redis has answered.

    Raises:
        CacheConfigError: the environment holds a setting that cannot be used.
    """
    made = _caches.get(asyncio.get_running_loop())
    cache, initialising = made if made is not None else _make(CacheSettings.from_env())
    if not initialising.done():  # a second caller waits too, or its cache would not be connected yet
        await asyncio.shield(initialising)
    return cache


async def close_redis_cache() -> None:
    """Close the cache of the running loop, if there is one. The next ``get_redis_cache`` makes a new one."""
    with _lock:
        made = _caches.pop(asyncio.get_running_loop(), None)
    if made is not None:
        cache, initialising = made
        await asyncio.wait({initialising})
        await cache.close()


async def use_redis_cache(redis_url: str | None = None, *, enabled: bool | None = None) -> RedisCache:
    """Replace the running loop's cache by one with these arguments of RedisCache, and initialise it.

    Raises:
        CacheConfigError: a setting cannot be used.
    """
    await close_redis_cache()
    _make(CacheSettings.from_env(redis_url, enabled=enabled))
    return await get_redis_cache()


def recall_with(revalidate: Revalidate | None) -> None:
    """As :meth:`RedisCache.recall_with`, for the cache of the running loop and every cache that replaces it."""
    loop = asyncio.get_running_loop()
    _revalidates[loop] = revalidate
    if loop in _caches:
        _caches[loop][0].recall_with(revalidate)


def _forked() -> None:
    """This process is a fork: the parent's threads, one of which may have held a lock, do not run here."""
    global _lock
    _lock = Lock()
    for entries in _pending.values():
        entries.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _make(settings: CacheSettings) -> tuple[RedisCache, asyncio.Task[bool]]:
    loop = asyncio.get_running_loop()
    cache = RedisCache(settings=settings, pending=_pending.setdefault(settings.safe_url, PendingEntries()))
    cache.recall_with(_revalidates.get(loop))
    # Its tasks last as long as it: in the context of the first caller they would hold all of it, such as a session.
    made = (cache, loop.create_task(cache.initialize(), name="cache-initialise", context=Context()))
    with _lock:
        for closed in [other for other in _caches if other.is_closed()]:  # their caches were not
            del _caches[closed]
        _caches[loop] = made
    return made
