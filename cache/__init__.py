"""A Redis caching layer for agents that must always answer in time.

::

    from cache import get_redis_cache, keys

    redis_cache = await get_redis_cache()
    key = keys.profile("123")
    profile = await redis_cache.get(key)
"""

from . import keys
from .locks import LockLost, LockUnavailable
from .redis_cache import RedisCache
from .registry import close_redis_cache, get_redis_cache, recall_with, use_redis_cache
from .serialization.codec import UnserialisableValue
from .settings import CacheConfigError, CacheSettings

__all__ = [
    "CacheConfigError",
    "CacheSettings",
    "LockLost",
    "LockUnavailable",
    "RedisCache",
    "UnserialisableValue",
    "close_redis_cache",
    "get_redis_cache",
    "keys",
    "recall_with",
    "use_redis_cache",
]
