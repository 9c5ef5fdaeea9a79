"""Companion: a LiveKit voice agent that remembers its callers, and the Redis caching layer that makes it quick.

::

    from livekit_companion import CacheTools, get_redis_cache, keys

The parts are ``livekit_companion.cache`` (knows neither LiveKit nor Supabase), ``.tools`` (what a model can call),
``.companion`` (who the companion is and what it knows) and ``.agent`` (the worker: ``livekit_companion.agent.server``).
The names below are loaded at first use (PEP 562): importing the cache alone loads neither LiveKit nor Supabase.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .cache import (
        CacheConfigError,
        CacheError,
        CacheSettings,
        InvalidKeyPart,
        LoadCycle,
        LoadTimeout,
        LockLost,
        LockUnavailable,
        RedisCache,
        UnserialisableValue,
        close_redis_cache,
        get_redis_cache,
        keys,
        recall_with,
        use_redis_cache,
    )
    from .companion import (
        CachedTTS,
        Caller,
        attach,
        current_caller,
        get_intelligent_first_message_instructions,
        get_user_profile_async,
        save_user_profile_async,
        use_caller,
    )
    from .tools import CacheTools, MemoryTools, ProfileTools

__all__ = [
    "CacheConfigError",
    "CacheError",
    "CacheSettings",
    "CacheTools",
    "CachedTTS",
    "Caller",
    "InvalidKeyPart",
    "LoadCycle",
    "LoadTimeout",
    "LockLost",
    "LockUnavailable",
    "MemoryTools",
    "ProfileTools",
    "RedisCache",
    "UnserialisableValue",
    "attach",
    "close_redis_cache",
    "current_caller",
    "get_intelligent_first_message_instructions",
    "get_redis_cache",
    "get_user_profile_async",
    "keys",
    "recall_with",
    "save_user_profile_async",
    "use_caller",
    "use_redis_cache",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        if name in __all__:
            for part in ("cache", "companion", "tools"):  # from the cheapest to load to the dearest
                package = import_module(f"{__name__}.{part}")
                if name in package.__all__:
                    value = globals()[name] = getattr(package, name)
                    return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
