"""The private Redis of a machine that has none, as the cache of one runtime."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from cache import CacheSettings, use_redis_cache
from cache.embedded import EmbeddedRedis, EmbeddedRedisError, redis_answers

logger = logging.getLogger("companion")
_without_cache: set[str] = set()  # reasons that were logged; a console has two loops, and would log each twice


class LocalCache:
    """Starts a private Redis, or joins the one of another process.

    Args:
        home: its folder is in this one.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._server: EmbeddedRedis | None = None
        self._turn = asyncio.Lock()  # conversations may begin at once, and would own a server each

    async def open(self) -> bool:
        """Start it, unless ``REDIS_URL`` is set or a Redis answers at the default address.

        Returns:
            Whether the loop's cache is private from now on.
        """
        async with self._turn:
            settings = CacheSettings.from_env()
            if not (settings.enabled and settings.url_is_default) or self._server is not None or await redis_answers():
                return False
            return await self._start(EmbeddedRedis(self._home))

    async def _start(self, private: EmbeddedRedis) -> bool:
        try:
            await use_redis_cache(await private.start())
        except EmbeddedRedisError as problem:
            if (reason := str(problem)) not in _without_cache:
                _without_cache.add(reason)
                logger.warning("Going on without a cache: %s", reason)
            await use_redis_cache(enabled=False)
            return False
        except BaseException:  # the job ends meanwhile
            await private.stop()
            raise
        self._server = private
        return True

    def take_over(self, other: LocalCache) -> None:
        """Stop the other's server in its place, when this one is closed."""
        self._server = self._server or other._server

    async def close(self) -> None:
        """Stop the server, or leave it to the process that started it."""
        if self._server is not None:
            await self._server.stop()
