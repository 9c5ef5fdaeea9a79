"""Clears the caches of what they hold of erased persons.

The store keeps the user id with an erasure until the workers of the registered cache have done this, so that a process
that dies in between, or has no Redis, leaves it to the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cache import RedisCache, get_redis_cache, keys

from ..store import PendingErasure, Store
from .cache_identity import CacheIdentity
from .cached_data import MAX_LIFETIME

_LONGEST: Final = max(MAX_LIFETIME, keys.SPEECH_TTL) + 300.0
"""Seconds for which a cache, or a dump of it, may hold something of a person; how far clocks differ is added."""


class ErasureRelay:
    """Delivers erasures to the cache.

    Args:
        store: returns the store; called when it is needed.
        identity: which cache this is.
    """

    def __init__(self, store: Callable[[], Store], identity: CacheIdentity) -> None:
        self._store = store
        self._identity = identity

    async def clear(self, user_id: str) -> bool:
        """Clear this process's cache of a person, whose erasure waits for the store.

        Returns:
            Whether Redis has acknowledged it, or there is no Redis. If not, the cache delivers it later.
        """
        return await _clear(await get_redis_cache(), user_id)

    async def deliver(self, erasure: PendingErasure) -> bool:
        """Clear the cache of an erased person.

        Returns:
            Whether all caches are clear of them, as far as they are known here: no where this is not the registered
            cache, or Redis cannot be reached.

        Raises:
            StoreError: it could not be acknowledged.
        """
        cache = await get_redis_cache()
        if not await _clear(cache, erasure.user_id):
            return False
        if not cache.enabled:
            return True
        cache_id = None if self._identity.private else await self._identity.of(cache)
        if cache_id is None or not await self._store().register_cache(cache_id, take_over=False):
            return False
        await self._store().acknowledge_erasure(erasure)
        return True

    async def deliver_pending(self, user_id: str | None = None) -> bool:
        """Clear the cache of every person, or of one, whose erasure is not acknowledged yet.

        Returns:
            Whether none is left.

        Raises:
            StoreError: the erasures could not be read or acknowledged.
        """
        complete = True
        for erasure in await self._store().pending_erasures(_LONGEST):
            if user_id in (None, erasure.user_id):
                complete &= await self.deliver(erasure)
        return complete

    async def latest(self, within: float = _LONGEST) -> int:
        """The number of the latest erasure within so many seconds; 0 for none. Whose it was is not kept.

        Raises:
            StoreError: it could not be read.
        """
        return await self._store().latest_erasure(within)


async def _clear(cache: RedisCache, user_id: str) -> bool:
    """Delete everything of a person from Redis and this process: values, last good values, leases, the index.

    Returns:
        Whether Redis has acknowledged it, or there is no Redis. If not, the cache delivers it later.
    """
    try:
        keys.user_id(user_id)
    except keys.InvalidKeyPart:
        return True  # nothing of them can be in the cache
    done = (await cache.invalidate(keys.user_pattern(user_id), user_id=user_id)).complete
    await cache.delete(keys.index(user_id))
    invalidations = cache.invalidations
    undelivered = invalidations.undelivered_for(user_id) or keys.index(user_id) in invalidations.pending.keys
    return not cache.enabled or (done and cache.connected and not undelivered)
