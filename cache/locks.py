"""Distributed locks: a key with a token per holder, released only by that holder.

On one server, as the documentation of SET describes it. A lock does not survive a failover that loses it.

A lock that cannot be acquired raises :class:`LockUnavailable`, also while Redis is away: code that continues without
the lock it asked for is worse than code that stops. So locks are for work that may be left undone; nothing on the way
to an answer takes one.

A lock that Redis may have granted to a caller that no longer waits is released in the background.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final

from .background import BackgroundTasks, loop_time
from .exceptions import CacheUnavailable, CommandNotSent, LockLost, LockUnavailable, TransportError, rejected_with
from .transport.commands import Transport
from .transport.scripts import RELEASE

logger = logging.getLogger("cache")
_RETRY_EVERY: Final = 0.05  # seconds between two attempts while another holder has the lock
_FIRST_RETRY, _LAST_RETRY = 0.05, 1.0  # seconds between two attempts to release one, doubling
_NOT_OURS: Final = 2  # replies "not the holder" that end the attempts: a request sent before may be executed after one
_MAX_RELEASES: Final = 100  # locks released in the background at a time; others expire


@dataclass(slots=True)
class _Hold:
    """One holder's lock.

    Attributes:
        name: the lock's key.
        ttl: seconds after which it expires.
        token: what the key holds.
        requested: whether Redis may have been asked for it.
    """

    name: str
    ttl: int
    token: str = field(default_factory=lambda: token_hex(16))
    requested: bool = False

    async def acquire(self, transport: Transport) -> bool:
        requested, self.requested = self.requested, True
        # The GET, because a request that is repeated over another connection finds its own lock.
        request = ("SET", self.name, self.token, "NX", "PX", self.ttl * 1000), ("GET", self.name)
        try:
            return bool((await transport.send_all(*request))[1] == self.token.encode())
        except CommandNotSent:
            self.requested = requested
            raise

    async def release(self, transport: Transport) -> bool:
        """Whether it was still ours."""
        return bool(await transport.run(RELEASE, (self.name, self.name), self.token, 0))


class Locks:
    """Acquires and releases locks.

    Attributes:
        releasing: releases that continue without a holder.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.releasing = BackgroundTasks()

    @asynccontextmanager
    async def hold(self, name: str, ttl: int, wait: float) -> AsyncIterator[None]:
        """See :meth:`cache.RedisCache.lock`; ``name`` is the lock's key."""
        if not self._transport.enabled:
            raise LockUnavailable("the cache is disabled, so no lock can be held")
        lock = _Hold(name, ttl)
        await self._acquire(lock, loop_time() + wait)
        try:
            yield
        finally:
            was_ours = await self._release(lock)
        if not was_ours:
            raise LockLost(f"{name} expired after {ttl} s, before the work under it was done")

    async def close(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for the releases under way. The other locks expire."""
        await self.releasing.ended(timeout)
        await self.releasing.cancel()

    async def _acquire(self, lock: _Hold, deadline: float) -> None:
        try:
            while not await lock.acquire(self._transport):
                if not loop_time() + _RETRY_EVERY <= deadline:  # also if it is NaN
                    raise LockUnavailable(f"{lock.name} has another holder")
                await asyncio.sleep(_RETRY_EVERY)
        except TransportError as problem:
            if isinstance(problem, CacheUnavailable):
                self._release_later(lock)
            raise LockUnavailable(f"{lock.name} cannot be taken: Redis is away") from None
        except asyncio.CancelledError:
            self._release_later(lock)
            raise

    async def _release(self, lock: _Hold) -> bool:
        """Release. False if the lock was no longer ours; True also if Redis is away and it is released later."""
        try:
            return await lock.release(self._transport)
        except TransportError as problem:
            if rejected_with(problem, "NOPERM"):  # a retry would change nothing
                logger.warning("[REDIS] Warning: releasing a lock is refused (NOPERM): it frees itself after its TTL")
                return True
            logger.warning("[REDIS] Warning: a lock could not be released; that is tried again until its TTL ends")
            self._release_later(lock)
            return True
        except asyncio.CancelledError:
            self._release_later(lock)
            raise

    def _release_later(self, lock: _Hold) -> None:
        """Release what Redis may have granted, or will grant when it reads the request."""
        if lock.requested and len(self.releasing) < _MAX_RELEASES and not self._transport.closed:
            self.releasing.spawn(self._retry_release(lock), name="cache-unlock")

    async def _retry_release(self, lock: _Hold) -> None:
        expires_at, refused, pause = loop_time() + lock.ttl, 0, _FIRST_RETRY
        while loop_time() < expires_at:
            try:
                if await lock.release(self._transport):
                    return
                refused += 1
                if refused == _NOT_OURS:
                    return
            except CommandNotSent:
                pass  # there is no connection over which Redis could still read the request
            except CacheUnavailable:
                expires_at = loop_time() + lock.ttl  # Redis may not have read the request yet
            except TransportError as problem:
                if rejected_with(problem, "NOPERM"):  # a retry would change nothing
                    return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_RETRY)
