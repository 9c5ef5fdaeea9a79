"""RedisCache: the documented operations, each answered within its deadline whatever Redis does.

Redis away, a refusal, a late reply: the call answers with its neutral value (the default, False, 0 or -2) and
is counted in ``connection_errors``. A programming error (a value that cannot be stored, a TTL that is not
positive, nx together with xx) raises at once, with or without Redis.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from . import codec, keys
from .arguments import checked_key, checked_pattern, checked_ttl
from .engine import Engine
from .invalidation import Invalidation, sweep
from .link import LinkDown, Refused
from .lock import LockUnavailable, hold
from .settings import CacheSettings
from .stats import hit_rate

logger = logging.getLogger("cache")
_MISSING: Final = object()


class RedisCache:
    """A cache in front of the source of truth. It belongs to one event loop.

    Args:
        redis_url: where Redis is; ``REDIS_URL`` where None.
        enabled: whether it starts switched on; ``REDIS_ENABLED`` where None.
        settings: everything at once, instead of the environment.

    Raises:
        CacheConfigError: a setting cannot be used (see there).
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        enabled: bool | None = None,
        settings: CacheSettings | None = None,
    ) -> None:
        self.settings = settings or CacheSettings.from_env(redis_url, enabled=enabled)
        self._engine = Engine(self.settings)
        self._counters = self._engine.counters
        self._pending = self._engine.pending

    @property
    def enabled(self) -> bool:
        """Whether the cache is switched on."""
        return self._engine.enabled

    @property
    def connected(self) -> bool:
        """Whether Redis is believed to answer right now."""
        return self._engine.connected

    async def initialize(self) -> bool:
        """Begin connecting, and wait for it at most ``CACHE_CONNECT_WAIT_MS``.

        Redis being down is not an error and not final: connecting goes on in the background, and the cache is
        used as soon as Redis answers.

        Returns:
            Whether Redis has answered.
        """
        return await self._engine.start()

    async def close(self) -> None:
        """Send the last counters and close every connection. Bounded: a silent Redis delays it briefly."""
        await self._engine.close()

    def enable(self) -> None:
        """Switch the cache on, at run time. It is used as soon as Redis answers."""
        self._engine.enable()

    def disable(self) -> None:
        """Switch the cache off, at run time: neutral answers and no traffic until ``enable()``.

        Invalidations asked for meanwhile are remembered and delivered when it is switched on again.
        """
        self._engine.disable()

    async def get(self, key: str, default: Any = None) -> Any:
        """The value stored under ``key``, as it went in (a tuple comes back as a list).

        Args:
            key: the key.
            default: answered on a miss. Pass one to tell a stored None from a miss.
        """
        raw = await self._engine.ask(_MISSING, "GET", checked_key(key))
        value = await self._decoded(key, raw)
        return default if value is _MISSING else value

    async def get_many(self, names: Iterable[str]) -> dict[str, Any]:
        """The values of several keys in one round trip; keys that miss are left out."""
        wanted = [checked_key(name) for name in names]
        if not wanted:
            return {}
        raws = await self._engine.ask([_MISSING] * len(wanted), "MGET", *wanted)
        found = {name: await self._decoded(name, raw) for name, raw in zip(wanted, raws, strict=True)}
        return {name: value for name, value in found.items() if value is not _MISSING}

    async def _decoded(self, key: str, raw: Any) -> Any:
        """The value behind a reply, counted as hit or miss. What cannot be decoded is removed."""
        if not self._engine.enabled:
            return _MISSING
        if raw is not None and raw is not _MISSING and not (self._pending and self._pending.covers(key)):
            try:
                value = codec.decode(raw)
            except codec.UndecodableValue:
                self._counters.undecodable += 1
                logger.warning("[REDIS] Warning: a value that cannot be decoded was removed (%s)", keys.shape(key))
                await self.delete(key)
            else:
                self._counters.cache_hits += 1
                return value
        self._counters.cache_misses += 1
        return _MISSING

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
            ValueError: the TTL is not positive, or nx and xx are both set.
            TypeError: the TTL is not a whole number.
        """
        command: list[Any] = ["SET", checked_key(key), codec.encode(value)]
        if ttl is not None:
            command += ["EX", checked_ttl(ttl)]
        if nx and xx:
            raise ValueError("nx and xx exclude each other: nothing can both exist and not exist")
        if nx or xx:
            command.append("NX" if nx else "XX")
        reply = await self._engine.ask(_MISSING, *command)
        if reply is _MISSING:
            if not nx:  # the old value may still be there, and it is no longer the right one
                self._pending.add(key)
            return False
        stored = bool(reply)
        if stored and self._pending:
            self._pending.settle(key)
        return stored

    async def set_many(self, values: Mapping[str, Any], ttl: int | None = None) -> int:
        """Store several values with one TTL (seconds), sent together. Returns how many were stored."""
        stored = await asyncio.gather(*(self.set(key, value, ttl=ttl) for key, value in values.items()))
        return sum(stored)

    async def delete(self, *names: str) -> int:
        """Remove keys. Returns how many there were.

        Where Redis cannot be told, the keys are remembered: this process serves none of their old values, and
        tells Redis as soon as it answers.
        """
        if not names:
            return 0
        doomed = [checked_key(name) for name in names]
        reply = await self._engine.ask(_MISSING, "UNLINK", *doomed)
        if reply is _MISSING:
            self._pending.add(*doomed)
            return 0
        return int(reply)

    async def exists(self, *names: str) -> int:
        """How many of the keys exist."""
        return int(await self._engine.ask(0, "EXISTS", *map(checked_key, names))) if names else 0

    async def expire(self, key: str, seconds: int) -> bool:
        """Let ``key`` live ``seconds`` from now on. Whether there was such a key."""
        return bool(await self._engine.ask(False, "EXPIRE", checked_key(key), checked_ttl(seconds)))

    async def ttl(self, key: str) -> int:
        """Seconds ``key`` has left; -1 = no expiry, -2 = no such key (or Redis is away)."""
        return int(await self._engine.ask(-2, "TTL", checked_key(key)))

    async def invalidate_pattern(self, pattern: str) -> int:
        """Remove every key that matches a Redis pattern. Returns how many.

        Locks, statistics and other keys of the layer itself are reached only by a pattern that names their
        prefix literally (``lock:*``). Redis may take long over many keys; each step has the usual deadline,
        so the call answers that soon after Redis falls silent, and what is left is done when it is back.

        Raises:
            ValueError: the pattern is empty or longer than 1024 characters.
        """
        return (await self.invalidate(pattern)).deleted

    async def clear_user_cache(self, user_id: str) -> int:
        """Remove every key of one user. Returns how many.

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
        outcome = Invalidation()
        if self._engine.enabled:
            try:
                await sweep(self._engine.call, pattern, user_id, outcome)
            except (LinkDown, Refused):
                self._engine.count_error()
        if not outcome.complete:
            self._pending.add_pattern(pattern, user_id)
        return outcome

    @asynccontextmanager
    async def lock(self, resource: str, id: str, ttl: int = keys.LOCK_TTL, wait: float = 0.0) -> AsyncIterator[None]:
        """Hold ``lock:{resource}:{id}``; see :func:`cache.lock.hold` for what it raises.

        Args:
            resource: what kind of thing is locked.
            id: which one.
            ttl: seconds after which the lock frees itself.
            wait: seconds to wait for a holder to let go.
        """
        if not self._engine.enabled:
            raise LockUnavailable("the cache is disabled, so nobody can hold a lock")
        async with hold(self._engine.call, keys.lock(resource, id), checked_ttl(ttl), wait):
            yield

    async def get_stats(self) -> dict[str, Any]:
        """The documented statistics: the fleet's totals, or this process's own while Redis is away."""
        totals, redis_keys, redis_memory = self._counters.totals(), 0, "0B"
        if self._engine.enabled:
            try:
                totals, redis_keys, redis_memory = await self._counters.fleet(self._engine.call)
            except (LinkDown, Refused):
                self._engine.count_error()
                totals = self._counters.totals()
        total, hits, misses, errors = totals
        return {
            "enabled": self.enabled,
            "connected": self.connected,
            "total_requests": total,
            "cache_hits": hits,
            "cache_misses": misses,
            "hit_rate": hit_rate(hits, total),
            "connection_errors": errors,
            "redis_keys": redis_keys,
            "redis_memory": redis_memory,
        }

    async def health_check(self) -> bool:
        """Whether Redis answers a PING within the deadline."""
        return bool(await self._engine.ask(False, "PING"))
