"""Reading what belongs to a person: through the cache, from the store where the cache does not know."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from cache import get_redis_cache, keys

from ..store.search_terms import search_words

STALE_FOR: Final = 86_400
"""Seconds for which the last good value stands in while the store fails. Never after a change of it."""
MAX_FACTS: Final = 5
"""Facts a search gives at most."""
T = TypeVar("T", str, dict, list)  # type: ignore[type-arg]  # what is kept under these keys, whatever is in it


async def read_through(key: keys.Key, load: Callable[[], Awaitable[T]], kind: type[T], *, stale_for: int = 0) -> T:
    """The value of ``key``, of type ``kind``.

    Args:
        key: the key, with its TTL.
        load: reads the store.
        kind: what the value is. Something else under the key was put there by others, and is read anew.
        stale_for: seconds beyond the TTL for which the last good value may stand in for a failing store.

    Raises:
        StoreError: neither cache nor store can say.
    """
    cache = await get_redis_cache()
    found = await cache.get_or_load(key, load, ttl=key.ttl, stale_for=stale_for)
    if isinstance(found, kind):
        return found
    await cache.delete(key)
    return await load()


def search_key(user_id: str, query: str) -> keys.Key:
    """What a memory search is kept under: the same for questions that look for the same words."""
    words = " ".join(sorted(set(search_words(query))))
    return keys.memory(user_id, f"search-{hashlib.sha256(words.encode()).hexdigest()[:32]}")
