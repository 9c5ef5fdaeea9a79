"""A Redis caching layer for agents that must always answer in time.

::

    from cache import get_redis_cache, keys

    redis_cache = await get_redis_cache()
    key = keys.profile("123")
    profile = await redis_cache.get(key)
"""

from . import keys, variables
from .background import BackgroundTasks, retrieve_exception
from .exceptions import (
    CacheConfigError,
    CacheError,
    InvalidKeyPart,
    LoadCycle,
    LoadTimeout,
    LockLost,
    LockUnavailable,
    UnserialisableValue,
)
from .redis_cache import RedisCache
from .registry import close_redis_cache, get_redis_cache, recall_with, use_redis_cache
from .settings import CacheSettings

__all__ = [
    "BackgroundTasks",
    "CacheConfigError",
    "CacheError",
    "CacheSettings",
    "InvalidKeyPart",
    "LoadCycle",
    "LoadTimeout",
    "LockLost",
    "LockUnavailable",
    "RedisCache",
    "UnserialisableValue",
    "close_redis_cache",
    "get_redis_cache",
    "keys",
    "recall_with",
    "retrieve_exception",
    "use_redis_cache",
    "variables",
]
