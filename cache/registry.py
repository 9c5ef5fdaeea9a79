"""One cache per event loop, so that whoever asks for it gets the same.

A Redis connection belongs to the loop it was opened in, and a worker may run several conversations in one
process, each with a loop of its own.

What one of them cannot tell Redis, because its own connection is broken, the others would go on serving from there. So
they are told, each in its own loop: they obey at once, and tell Redis over connections of theirs. What one still owes
when it is closed is kept for the next of the same Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from functools import partial
from threading import Lock
from weakref import WeakKeyDictionary

from .coherence.pending import PendingInvalidations
from .coherence.server_epoch import Ask
from .redis_cache import RedisCache

_asks: WeakKeyDictionary[asyncio.AbstractEventLoop, Ask | None] = WeakKeyDictionary()
_caches: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[RedisCache, asyncio.Task[bool]]] = WeakKeyDictionary()
_left: dict[
    str, dict[int, PendingInvalidations]
] = {}  # by the address of a Redis and a cache that was closed: what that still owed
_changing = Lock()  # held to change what is in these, and to look at the caches of other loops


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
    made = _drop(asyncio.get_running_loop())
    if made is not None:
        cache, initialising = made
        _leave(cache)  # closing takes a while, and whoever comes meanwhile has to know already
        try:
            await asyncio.wait({initialising})
            await cache.close()
        finally:
            _leave(cache)


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
    made = (cache, loop.create_task(cache.initialize(), name="cache-initialise"))
    with _changing:
        _caches[loop] = made
    place = cache.settings.safe_url
    with _changing:
        left = _left.pop(place, None)
    for debts in (left or {}).values():
        cache.take_over(debts)
    cache.share_debts(partial(_tell_others, loop, place))
    for other, theirs in _others(loop, place):
        _soon(other, partial(_repeat, theirs, loop, cache))
    return made


def _drop(loop: asyncio.AbstractEventLoop) -> tuple[RedisCache, asyncio.Task[bool]] | None:
    with _changing:
        return _caches.pop(loop, None)


def _leave(cache: RedisCache) -> None:
    """What it has not told yet is left to those who serve from the same Redis, and to who will in this process."""
    place, left = cache.settings.safe_url, cache.left
    with _changing:  # before the others are told, or one that is made at this moment would be in neither
        here = _left.setdefault(place, {})
        here.pop(id(cache), None)
        if any(left):
            here[id(cache)] = left
        if not here:
            del _left[place]
    if any(left):
        loop = asyncio.get_running_loop()
        _tell_others(loop, place, left)
        if loop in _caches and _caches[loop][0].settings.safe_url == place:  # made while this one was being closed
            _caches[loop][0].take_over(left)


def _others(loop: asyncio.AbstractEventLoop, place: str) -> list[tuple[asyncio.AbstractEventLoop, RedisCache]]:
    """The caches of the same Redis in other loops. They are touched there, by :func:`_soon`, and nowhere else."""
    with _changing:
        made = [(other, cache) for other, (cache, _) in _caches.items()]
    return [(other, cache) for other, cache in made if other is not loop and cache.settings.safe_url == place]


def _soon(loop: asyncio.AbstractEventLoop, do: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(do, context=Context())
    except RuntimeError:  # the loop was closed, and its cache was not
        _drop(loop)


def _tell_others(loop: asyncio.AbstractEventLoop, place: str, debts: PendingInvalidations) -> None:
    for other, cache in _others(loop, place):
        _soon(other, partial(cache.take_over, debts))


def _repeat(cache: RedisCache, loop: asyncio.AbstractEventLoop, newcomer: RedisCache) -> None:
    """Tell one that was made later what is owed by then."""
    if any(debts := cache.debts):
        _soon(loop, partial(newcomer.take_over, debts))
