"""The identity of a cache: a random id, kept in the cache itself, under which the store registers it.

The invalidations of one store are acknowledged by the workers of one cache, the registered one. A console with a Redis
of its own, say, must not acknowledge what the registered Redis has not received.
"""

from __future__ import annotations

from typing import Final
from uuid import uuid4

from cache import RedisCache

KEY: Final = "system:cache"
"""Where a cache holds its id, without expiry."""


class CacheIdentity:
    """Reads the id of the cache behind this process's address, and gives a new cache one.

    Attributes:
        private: whether this machine alone uses the cache, while others write to the store.
        registered: whether this is the cache that the store has registered; None before the store was asked.
    """

    def __init__(self) -> None:
        self.private = False
        self.registered: bool | None = None
        self._id: str | None = None

    async def of(self, cache: RedisCache) -> str | None:
        """The cache's id; None while it cannot be read.

        A registered cache that has lost its id (flushed, or replaced behind the same address) gets it back.
        """
        stored = await cache.get(KEY, counted=False)
        if not isinstance(stored, str) or (self.registered and stored != self._id):
            # Of several processes that see an empty cache, one gives the id.
            await cache.set(KEY, self._id or uuid4().hex, nx=stored is None)
            stored = await cache.get(KEY, counted=False)
        if not isinstance(stored, str):
            return None
        self._id = stored
        return stored
