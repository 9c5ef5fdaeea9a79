"""RedisCache: the documented operations, each answered within its deadline whatever Redis does.

Redis away, a refusal, a late reply: the call answers with its neutral value (the default, False, 0 or -2) and
is counted in ``connection_errors``. A programming error (a value that cannot be stored, a TTL that is not
positive, nx together with xx) raises at once, with or without Redis.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from . import keys
from .coherence.near_cache import MISSING
from .core.stats import report
from .exceptions import LockUnavailable, TransportError
from .invalidation.invalidator import Invalidation
from .life import CacheLife
from .loading.fill import Loader
from .loading.policy import EntryOptions
from .reader import UNANSWERED
from .validation import checked_key, checked_pattern, checked_ttl

logger = logging.getLogger("cache")
T = TypeVar("T")


class RedisCache(CacheLife):
    """A cache in front of the source of truth. It belongs to one event loop.

    Args:
        redis_url: where Redis is; ``REDIS_URL`` where None.
        enabled: whether it starts switched on; ``REDIS_ENABLED`` where None.
        settings: everything at once, instead of the environment.

    Raises:
        CacheConfigError: a setting cannot be used (see there).
    """

    async def get(self, key: str, default: Any = None, *, fresh: bool = False) -> Any:
        """The value stored under ``key``, as it went in (a tuple comes back as a list).

        Args:
            key: the key.
            default: answered on a miss. Pass one to tell a stored None from a miss.
            fresh: ask Redis even if the near cache knows.
        """
        checked_key(key)
        if not fresh and (value := self._reader.kept(key)) is not MISSING:
            return value
        value, _ = await self._reader.one(key)
        return default if value is MISSING else value

    async def get_many(self, names: Iterable[str]) -> dict[str, Any]:
        """The values of several keys in one round trip; keys that miss are left out."""
        return await self._reader.many([checked_key(name) for name in names])

    async def get_or_load(
        self,
        key: str,
        loader: Loader,
        ttl: int | None = None,
        *,
        stale_for: int = 0,
        refresh_after: int | None = None,
        negative_ttl: int | None = None,
    ) -> Any:
        """The value of ``key``; on a miss, what ``loader`` returns, loaded once across tasks and processes.

        A load that began before an invalidation of the key was acknowledged is never stored. A caller that is
        cancelled cancels nobody else's load. With Redis away the loader is asked, once for all callers of this
        process.

        Args:
            key: the key.
            loader: makes the value; an async callable without arguments.
            ttl: seconds to live, at least 1, shortened at random by up to ``CACHE_TTL_SPREAD`` (5 %) so that keys
                filled together do not expire together; None for no expiry.
            stale_for: seconds beyond the TTL for which a loader that fails, or is slower than a quarter of a second,
                is answered with the last good value; never after an invalidation.
            refresh_after: seconds after which a hit is served at once and loaded anew in the background. Where it is
                given, it is what ``CACHE_TTL_SPREAD`` is a share of: TTL and refresh come that much earlier at most.
            negative_ttl: seconds to keep a None that the loader returned; None keeps none. Either way the value that
                was there before goes, and the last good one with it.

        Returns:
            The value.

        Raises:
            whatever the loader raises, when no last good value may stand in.
            codec.UnserialisableValue: the loader returned what cannot be stored.
            ValueError, TypeError: an argument is not what it should be.
        """
        terms = EntryOptions.checked(ttl, stale_for, negative_ttl, self.settings.ttl_spread, refresh_after)
        old = terms.oldest
        checked_key(key)
        if old is None and (value := self._reader.kept(key)) is not MISSING:
            return value
        began = asyncio.get_running_loop().time()
        if self._engine.enabled and self._filler.busy(key):
            value, there = await self._filler.fill(key, loader, terms, began)
            self._engine.counters.count(there)
            return value
        value, left = await self._reader.one(key, with_ttl=old is not None)
        if value is MISSING:
            return (await self._filler.fill(key, loader, terms, began, failed=left == UNANSWERED))[0]
        # A None is kept for its own, shorter time, and loaded anew when that has passed.
        if old is not None and value is not None and 0 <= left < old:
            self._filler.refresh(key, loader, terms, old)
        return value

    async def set(self, key: str, value: Any, ttl: int | None = None, nx: bool = False, xx: bool = False) -> bool:
        """Store ``value`` under ``key``.

        Args:
            key: the key.
            value: str, int, float, bool, None, list, tuple or dict, nested as you like.
            ttl: seconds to live, at least 1; None for no expiry.
            nx: store only if the key does not exist.
            xx: store only if the key exists.

        Returns:
            Whether it was stored.

        Raises:
            codec.UnserialisableValue: the value would not come back as it went in.
            ValueError: the value is larger than ``CACHE_MAX_VALUE_BYTES``, the TTL is not positive, or nx and xx
                are both set.
            TypeError: the TTL is not a whole number.
        """
        return await self._writer.set(key, value, ttl, nx=nx, xx=xx)

    async def set_many(self, values: Mapping[str, Any], ttl: int | None = None) -> int:
        """Store several values with one TTL (seconds), sent together. Returns how many were stored."""
        stored = await asyncio.gather(*(self.set(key, value, ttl=ttl) for key, value in values.items()))
        return sum(stored)

    async def delete(self, *names: str) -> int:
        """Remove keys. Returns how many there were.

        Where Redis cannot be told, the keys are remembered: this process serves none of their old values, and
        tells Redis as soon as it answers.
        """
        return await self._writer.delete([checked_key(name) for name in names])

    async def _answered(self, neutral: T, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` gives; ``neutral``, counted as an error, when Redis is away, late or says no."""
        try:
            return await work
        except TransportError as problem:
            self._engine.count_error(problem)
            return neutral

    async def exists(self, *names: str) -> int:
        """How many of the keys exist."""
        wanted = [checked_key(name) for name in names]
        return await self._answered(0, self._engine.exists(wanted)) if wanted else 0

    async def expire(self, key: str, seconds: int) -> bool:
        """Let ``key`` live ``seconds`` from now on. Whether there was such a key."""
        return bool(await self._answered(0, self._engine.send("EXPIRE", checked_key(key), checked_ttl(seconds))))

    async def ttl(self, key: str) -> int:
        """Seconds ``key`` has left; -1 = no expiry, -2 = no such key (or Redis is away)."""
        return int(await self._answered(-2, self._engine.send("TTL", checked_key(key))))

    async def invalidate_pattern(self, pattern: str) -> int:
        """Remove every key that matches a Redis pattern. Returns how many.

        Locks, statistics and other keys of the layer itself are reached only by a pattern that names their
        prefix literally (``lock:*``). Redis may take long over many keys; each step has the usual deadline, and once
        begun a few tries, so the call answers that soon after Redis falls silent. What is left is done when it is
        back.

        Raises:
            ValueError: the pattern is empty or longer than 1024 characters.
        """
        return (await self.invalidate(pattern)).deleted

    async def clear_user_cache(self, user_id: str) -> int:
        """Remove every key of one user. Returns how many this call removed.

        Keys that others wrote may be found later, by a walk in the background. They are not in that number, and are
        not served from now on.

        Raises:
            keys.InvalidKeyPart: the id could reach further than one user's keys.
        """
        return (await self.invalidate(keys.user_pattern(user_id), user_id=user_id)).deleted

    async def invalidate(self, pattern: str, *, user_id: str | None = None) -> Invalidation:
        """What ``invalidate_pattern`` does, saying also whether it could be completed.

        Args:
            pattern: a Redis pattern.
            user_id: if given, only that user's keys among those the pattern matches.
        """
        checked_pattern(pattern)
        if user_id is not None:
            keys.user_id(user_id)
        return await self._invalidator.invalidate(pattern, user_id)

    @asynccontextmanager
    async def lock(self, resource: str, id: str, ttl: int = keys.LOCK_TTL, wait: float = 0.0) -> AsyncIterator[None]:
        """Hold ``lock:{resource}:{id}``; see :meth:`cache.locks.Locks.hold` for what it raises.

        Args:
            resource: what kind of thing is locked.
            id: which one.
            ttl: seconds after which the lock frees itself.
            wait: seconds to wait for a holder to let go.
        """
        if not self._engine.enabled:
            raise LockUnavailable("the cache is disabled, so nobody can hold a lock")
        async with self._locks.hold(keys.lock(resource, id), checked_ttl(ttl), wait):
            yield

    async def get_stats(self) -> dict[str, Any]:
        """The documented statistics: the fleet's totals, or this process's own while Redis is away."""
        counters, own = self._engine.counters, (self._engine.counters.totals(), 0, "0B")
        found = await self._answered(None, counters.fleet(self._engine.call))
        totals, redis_keys, redis_memory = found or own
        return report(self.enabled, self.connected, totals, redis_keys, redis_memory)

    async def report_stale(self, key: str, age: float) -> None:
        """Say that ``key`` serves what is no longer true: it is counted (``stale_reads``), logged, and removed.

        Args:
            key: the key; it stands in the log, and so does the user id in it.
            age: seconds since the truth changed.
        """
        checked_key(key)
        self._engine.counters.stale_reads += 1
        logger.warning("[REDIS] Warning: stale value under %s, %.1f s after the change: removed", key, age)
        await self.delete(key)

    async def health_check(self) -> bool:
        """Whether Redis answers a PING within the deadline."""
        return await self._answered(None, self._engine.send("PING")) is not None
