"""RedisCache: the documented operations, each answered within its deadline whatever Redis does.

If Redis is away, late, or rejects a command, the call answers with its neutral value (the default, False, 0 or -2) and
``connection_errors`` counts it. A programming error (a key that is empty or no text, an unserialisable value, a TTL or
timeout that is not positive, nx together with xx) raises TypeError or ValueError at once, with or without Redis.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from . import keys
from .coherence.near_cache import MISSING
from .coherence.pending_entries import PendingEntries
from .coherence.server_epoch import Revalidate
from .core.engine import Engine
from .invalidation.invalidator import Invalidation, Invalidator
from .loading.fill import Filler
from .loading.loaders import Loader
from .loading.lookup import Lookup
from .loading.policy import entry_options
from .locks import Locks
from .reader import Reader
from .settings import CacheSettings
from .validation import checked_key, checked_pattern, checked_ttl
from .writer import Writer

logger = logging.getLogger("cache")


class RedisCache:
    """A cache in front of the source of truth. It belongs to one event loop.

    Args:
        redis_url: where Redis is; ``REDIS_URL`` where None.
        enabled: whether it starts switched on; ``REDIS_ENABLED`` where None.
        settings: everything at once, instead of the environment.
        pending: what is pending for the same Redis, to share with its other caches in this process.

    Attributes:
        settings: what it was made with.
        invalidations: the pending invalidations.

    Raises:
        CacheConfigError: a setting cannot be used.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        enabled: bool | None = None,
        settings: CacheSettings | None = None,
        pending: PendingEntries | None = None,
    ) -> None:
        self.settings = settings or CacheSettings.from_env(redis_url, enabled=enabled)
        self._engine = Engine(self.settings, pending, redeliver=lambda: self.invalidations.redeliver())
        self._reader = Reader(self._engine)
        self._filler = Filler(self._engine, self.settings.safe_url)
        self._lookup = Lookup(self._engine, self._reader, self._filler)
        self.invalidations = Invalidator(self._engine, self._filler)
        self._writer = Writer(self._engine, self._filler, self.invalidations)
        self._locks = Locks(self._engine.transport)

    # -- start and stop --------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        """Whether the cache is switched on."""
        return self._engine.transport.enabled

    @property
    def connected(self) -> bool:
        """Whether Redis is believed to answer right now."""
        return self._engine.transport.connected

    async def initialize(self) -> bool:
        """Begin connecting. Returns whether Redis has answered within ``CACHE_CONNECT_WAIT_MS``.

        If not, connecting continues in the background, and the cache is used as soon as Redis answers.
        """
        return await self._engine.start()

    async def close(self) -> None:
        """Flush the counters and close every connection. Bounded: a silent Redis delays it briefly.

        Afterwards every call answers neutrally, as with Redis away, until the cache is initialised again.
        """
        self._engine.transport.closed = True
        await self._filler.close()
        await self.invalidations.close()
        await self._locks.close(2 * self._engine.transport.deadline)
        await self._engine.close()

    def enable(self) -> None:
        """Switch the cache on at run time. It is used as soon as Redis answers."""
        self._engine.transport.enable()

    def disable(self) -> None:
        """Switch the cache off at run time: neutral answers and no traffic until ``enable()``.

        Invalidations requested meanwhile stay pending and are delivered when it is switched on again.
        """
        self._engine.disable()

    def recall_with(self, revalidate: Revalidate | None) -> None:
        """Set what is called when Redis may have lost acknowledged invalidations: restart, restore or failover.

        It invalidates again what changed lately, and returns whether that covers everything. Until then no value of any
        user is served. An exception counts as "cannot say now": it is called again, for a minute. After that, or if it
        returns False or takes longer, or None is set, all that this layer wrote for users is deleted.
        """
        self._engine.servers.revalidate = revalidate

    # -- reading ---------------------------------------------------------------------------------------

    async def get(
        self, key: str, default: Any = None, *, fresh: bool = False, counted: bool = True, timeout: float | None = None
    ) -> Any:
        """The value stored under ``key``, as it went in (a tuple comes back as a list).

        Args:
            default: answered on a miss. Pass one to tell a stored None from a miss.
            fresh: ask Redis even if the near cache knows.
            counted: False for a program's own bookkeeping, which is no hit and no miss; it asks Redis.
            timeout: seconds for this call, here and below, where it is to answer sooner than CACHE_DEADLINE_MS.
        """
        if timeout is not None:
            return await self._engine.answer(default, self.get(key, default, fresh=fresh, counted=counted), timeout)
        checked_key(key)
        if not fresh and counted and (value := self._reader.near(key)) is not MISSING:
            return value
        value, _ = await self._reader.one(key, counted=counted)
        return default if value is MISSING else value

    async def get_many(self, names: Iterable[str], *, timeout: float | None = None) -> dict[str, Any]:
        """The values of several keys; keys that miss are left out. Each 1,000 are one round trip with a deadline."""
        return await self._engine.answer({}, self._reader.many([checked_key(name) for name in names]), timeout)

    async def get_or_load(
        self,
        key: str,
        loader: Loader,
        ttl: int | None = None,
        *,
        stale_for: int = 0,
        refresh_after: int | None = None,
        negative_ttl: int | None = None,
        load_timeout: float = 30.0,
        retry_after: float = 1.0,
    ) -> Any:
        """Return the value of ``key``; on a miss, load it once across tasks and processes.

        A load that began before an invalidation of the key was acknowledged is never stored. A cancelled caller does
        not cancel it for others, who each get a copy. With Redis away it runs once for all callers of this process.

        Args:
            loader: makes the value; an async callable without arguments.
            ttl: seconds to live, at least 1, shortened at random by up to ``CACHE_TTL_SPREAD`` (5 %) so that keys
                filled together do not expire together; None for no expiry.
            stale_for: seconds beyond the TTL for which the last good value is returned if the loader fails, or has
                run for a quarter of a second; never after an invalidation.
            refresh_after: seconds after which a hit is returned at once and loaded again in the background.
                ``CACHE_TTL_SPREAD`` is then a share of it: TTL and refresh come at most that much earlier.
            negative_ttl: seconds to keep a None that the loader returned; None keeps none. Either way the value that
                was there before is deleted, and the last good one with it.
            load_timeout: seconds after which the loader is cancelled. A caller waits as long for the load of another
                process, then loads for itself and does not store.
            retry_after: seconds after a failed load for which the last good value, if any, is returned at once.

        Raises:
            UnserialisableValue: the loader returned what cannot be stored.
            LoadCycle: a loader asked for the key that it loads, directly or through other keys.
            LoadTimeout: the loader did not end within ``load_timeout``.
            TypeError, ValueError: an argument is of the wrong type, or out of range.
            Exception: what the loader raises, unless a last good value is returned instead.
        """
        spread = self.settings.ttl_spread
        options = entry_options(ttl, stale_for, negative_ttl, spread, refresh_after, load_timeout, retry_after)
        return await self._lookup.get_or_load(checked_key(key), loader, options)

    async def warm(
        self,
        key: str,
        loader: Loader,
        ttl: int | None = None,
        *,
        stale_for: int = 0,
        negative_ttl: int | None = None,
        load_timeout: float = 30.0,
        retry_after: float = 1.0,
    ) -> Any:
        """Load ``key`` ahead of its lookups, unless it is there. Returns the value, and raises, as :meth:`get_or_load`.

        This is no lookup: it counts as neither a hit nor a miss, and a load counts as ``warmed``.
        """
        options = entry_options(ttl, stale_for, negative_ttl, self.settings.ttl_spread, None, load_timeout, retry_after)
        return await self._lookup.warm(checked_key(key), loader, options)

    # -- writing ---------------------------------------------------------------------------------------

    async def set(
        self,
        key: str,
        value: Any,
        ttl: int | None = None,
        nx: bool = False,
        xx: bool = False,
        *,
        timeout: float | None = None,
    ) -> bool:
        """Store ``value`` under ``key``. Returns whether it was stored.

        Args:
            value: str, int, float, bool, None, bytes; list, tuple or dict of these but bytes, nested as you like.
            ttl: seconds to live, at least 1; None for no expiry.
            nx, xx: store only if the key does not exist, or only if it exists.

        Raises:
            UnserialisableValue: the value would not come back as it went in.
            TypeError, ValueError: no positive whole TTL, a value beyond ``CACHE_MAX_VALUE_BYTES``, or both nx and xx.
        """
        return await self._engine.answer(False, self._writer.set(key, value, ttl, nx=nx, xx=xx), timeout)

    async def set_many(self, values: Mapping[str, Any], ttl: int | None = None, *, timeout: float | None = None) -> int:
        """Store several values with one TTL (seconds). Returns how many were stored. Each 250 have a deadline.

        All are checked before any is stored. It raises as :meth:`set` does.
        """
        return await self._engine.answer(0, self._writer.set_many(values, ttl), timeout)

    async def incr(self, key: str, by: int = 1, ttl: int | None = None, *, timeout: float | None = None) -> int | None:
        """Add ``by`` (64 bits) to a counter, in one step, and return it; :meth:`get` reads it.

        A counter that does not exist begins at 0 and lives ``ttl`` seconds, or for ever; an existing one keeps its TTL.
        None is the answer if Redis is away or late, which leaves open whether it was counted; if the key holds no
        counter, or one that would exceed 64 bits; and for a user's key while values are encrypted, because Redis cannot
        add to what it cannot read.
        """
        return await self._engine.answer(None, self._writer.incr(key, by, ttl), timeout)

    async def delete(self, *names: str, timeout: float | None = None) -> int:
        """Delete keys. Returns how many existed. Each 250 have a deadline.

        What Redis does not acknowledge is pending: not served by this process, and redelivered when Redis answers.
        """
        return await self._engine.answer(0, self._writer.delete([checked_key(name) for name in names]), timeout)

    async def expire(self, key: str, seconds: int, *, timeout: float | None = None) -> bool:
        """Let ``key`` expire ``seconds`` from now. Returns whether it exists."""
        command = ("EXPIRE", checked_key(key), checked_ttl(seconds))
        return bool(await self._engine.answer(0, self._engine.transport.send(*command), timeout))

    # -- invalidation ----------------------------------------------------------------------------------

    async def invalidate_pattern(self, pattern: str) -> int:
        """Delete every key that matches a Redis pattern. Returns how many were deleted.

        Locks, statistics and other keys of the layer itself are deleted only by a pattern that names their prefix
        literally (``lock:*``). A scan over many keys takes as long as it takes; each of its steps has the usual
        deadline and a few retries, so the call returns soon after Redis falls silent. The rest is redelivered.

        Raises:
            TypeError, ValueError: the pattern is no text of 1 to 1,024 characters, or not to be written as UTF-8.
        """
        return (await self.invalidate(pattern)).deleted

    async def clear_user_cache(self, user_id: str) -> int:
        """Delete every key of one user. Returns how many this call deleted.

        Keys that other programs wrote may be deleted later, in the background. They are not served from now on.

        Raises:
            InvalidKeyPart: the id could reach further than one user's keys.
        """
        return (await self.invalidate(keys.user_pattern(user_id), user_id=user_id)).deleted

    async def invalidate(self, pattern: str, *, user_id: str | None = None, own: bool = False) -> Invalidation:
        """As :meth:`invalidate_pattern`, and report whether it could be completed.

        Args:
            pattern: a Redis pattern.
            user_id: if given, only this user's keys among those that the pattern matches.
            own: delete only keys that this layer wrote: those of one user that are known by name, without a scan, or
                those of all users, in the background.

        Raises:
            TypeError, ValueError: the pattern is no text of 1 to 1,024 characters, or not to be written as UTF-8.
            InvalidKeyPart: the user id is unusable.
        """
        checked_pattern(pattern)
        if user_id is not None:
            keys.user_id(user_id)
        return await self.invalidations.invalidate(pattern, user_id, own=own)

    async def report_stale(self, key: str, age: float) -> None:
        """Count (``stale_reads``), log and delete a key whose value differs from the source of truth.

        The log holds the key, and with it the user id in it. ``age``: seconds since the source changed.
        """
        checked_key(key)
        self._engine.counters.stale_reads += 1
        logger.warning("[REDIS] Warning: stale value under %s, %.1f s after the change: removed", key, age)
        await self.delete(key)

    # -- keys, locks, statistics -----------------------------------------------------------------------

    async def exists(self, *names: str, timeout: float | None = None) -> int:
        """Return how many of the keys exist."""
        return await self._engine.answer(0, self._engine.transport.exists([*map(checked_key, names)]), timeout)

    async def ttl(self, key: str, *, timeout: float | None = None) -> int:
        """Return the seconds ``key`` has left; -1: no expiry, -2: no such key, or Redis is away."""
        return int(await self._engine.answer(-2, self._engine.transport.send("TTL", checked_key(key)), timeout))

    def lock(
        self, resource: str, id: str, ttl: int = keys.LOCK_TTL, wait: float = 0.0
    ) -> AbstractAsyncContextManager[None]:
        """Hold the lock ``lock:{resource}:{id}`` during the ``async with`` block.

        It expires after ``ttl`` seconds. ``wait``: seconds to wait for another holder.

        Raises:
            LockUnavailable: it was not acquired: held by another holder, Redis away, or the cache disabled.
            LockLost: the block completed, but later than ``ttl``.
            TypeError, ValueError: a part of the name or the TTL is unusable; raised by the call itself.
        """
        return self._locks.hold(keys.lock(resource, id), checked_ttl(ttl), wait)

    async def get_stats(self) -> dict[str, Any]:
        """Return the documented statistics: the fleet's totals, or this process's own while Redis is away."""
        counters, state = self._engine.counters, {"enabled": self.enabled, "connected": self.connected}
        return state | await self._engine.answer(counters.own(), counters.fleet(self._engine.transport))

    async def health_check(self) -> bool:
        """Return whether Redis answers within the deadline."""
        return await self._engine.answer(False, self._engine.transport.answers())
