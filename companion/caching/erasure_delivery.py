"""Removes from the cache what it holds of erased persons.

The store keeps the user id with an erasure until a process has done this, so that one that dies in between, or has no
Redis, leaves it to the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cache import RedisCache, get_redis_cache, keys

from ..store import PendingErasure, Store
from .invalidation import MAX_LIFETIME

_CLOCK_SKEW: Final = 300.0  # seconds


async def clear_person(cache: RedisCache, user_id: str) -> bool:
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
    return not cache.enabled or (done and cache.connected and not cache.invalidations.undelivered_for(user_id))


async def deliver_erasures(store: Callable[[], Store]) -> bool:
    """Clear the cache of every person whose erasure no cache has acknowledged yet.

    Returns:
        Whether none is left.

    Raises:
        StoreError: the erasures could not be read or acknowledged.
    """
    cache = await get_redis_cache()
    complete = True
    for erasure in await store().pending_erasures(MAX_LIFETIME + _CLOCK_SKEW):
        complete &= await deliver_erasure(cache, store(), erasure)
    return complete


async def deliver_erasure(cache: RedisCache, store: Store, erasure: PendingErasure) -> bool:
    """Clear the cache of one erased person, and acknowledge that.

    Returns:
        Whether it is acknowledged.

    Raises:
        StoreError: it could not be acknowledged.
    """
    if not await clear_person(cache, erasure.user_id):
        return False
    await store.acknowledge_erasure(erasure)
    return True
