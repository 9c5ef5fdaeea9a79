"""Distributed locks, on redis-py's own (a token per holder, released only by that holder).

A lock that cannot be taken says so: :class:`LockUnavailable` is raised when somebody else holds it and when
Redis is away, because code that goes on without the lock it asked for is worse than code that stops. So locks
are for work that may be left undone; nothing on the way to an answer takes one.

What Redis may have granted to somebody who does not wait for it any more is given back in the background.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockNotOwnedError

from .background import BackgroundTasks
from .core.stats import Call
from .exceptions import CacheUnavailable, CommandRejected, LockLost, LockUnavailable, TransportError

logger = logging.getLogger("cache")
_RETRY: Final = 0.05  # seconds between two tries while somebody else holds the lock
_SOON, _LATEST = 0.05, 1.0  # seconds between two tries to give one back: first, and at most
_TOLD: Final = 2  # times that Redis says a lock is not ours: what was sent before may be read after
_MOST_OWED: Final = 100  # locks that are being given back; others free themselves


@dataclass(slots=True)
class _Hold:
    """One holder's lock.

    Attributes:
        name: the lock's key.
        ttl: seconds after which it frees itself.
        token: what stands in the key.
        asked: whether Redis may have been asked for it.
    """

    name: str
    ttl: int
    token: str = field(default_factory=lambda: token_hex(16))
    asked: bool = False

    async def acquire(self, client: Redis) -> bool:
        self.asked = True
        if await self._lock(client).acquire(token=self.token):
            return True
        # When a connection is lost redis-py asks again, over another: whoever holds it may be ourselves.
        return bool(await client.get(self.name) == self.token.encode())

    async def release(self, client: Redis) -> bool:
        """Whether it was still ours."""
        try:
            await self._lock(client).do_release(self.token.encode())
        except LockNotOwnedError:
            return False
        return True

    def _lock(self, client: Redis) -> Lock:
        return client.lock(self.name, timeout=self.ttl, blocking=False, thread_local=False)


class Locks:
    """Takes locks, and gives back what it got.

    Args:
        call: runs an operation against Redis within the deadline.

    Attributes:
        releasing: locks that are being given back in the background.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self.releasing = BackgroundTasks()

    @asynccontextmanager
    async def hold(self, name: str, ttl: int, wait: float) -> AsyncIterator[None]:
        """Hold the lock ``name`` for the time of the ``async with`` block.

        Args:
            name: the lock's key.
            ttl: seconds after which the lock frees itself.
            wait: seconds to wait for another holder.

        Raises:
            LockUnavailable: it was not taken.
            LockLost: the block ended well, but later than ``ttl``.
        """
        lock = _Hold(name, ttl)
        await self._acquire(lock, asyncio.get_running_loop().time() + wait)
        try:
            yield
        except BaseException:
            await self._release(lock)
            raise
        if not await self._release(lock):
            raise LockLost(f"{name} expired after {ttl} s, before the work under it was done")

    async def close(self, timeout: float) -> None:
        """Give back what is being given back, for so many seconds at most. The rest frees itself."""
        await self.releasing.ended(timeout)
        await self.releasing.cancel()

    async def _acquire(self, lock: _Hold, give_up: float) -> None:
        try:
            while not await self._call(lock.acquire):
                if asyncio.get_running_loop().time() + _RETRY > give_up:
                    raise LockUnavailable(f"{lock.name} is held by somebody else")
                await asyncio.sleep(_RETRY)
        except CommandRejected:
            raise LockUnavailable(f"{lock.name} cannot be taken: Redis is away") from None
        except CacheUnavailable:
            self._release_later(lock)
            raise LockUnavailable(f"{lock.name} cannot be taken: Redis is away") from None
        except asyncio.CancelledError:
            self._release_later(lock)
            raise

    async def _release(self, lock: _Hold) -> bool:
        """Let go. False if the lock was no longer ours; True too when Redis is away, and it is let go later."""
        try:
            return bool(await self._call(lock.release))
        except TransportError as problem:
            if _for_good(problem):
                logger.warning("[REDIS] Warning: releasing a lock is refused (NOPERM): it frees itself after its TTL")
                return True
            logger.warning("[REDIS] Warning: a lock could not be released; that is tried again until its TTL ends")
            self._release_later(lock)
            return True
        except asyncio.CancelledError:
            self._release_later(lock)
            raise

    def _release_later(self, lock: _Hold) -> None:
        """Give back what Redis may have granted, or grants when it reads what it was sent."""
        if lock.asked and len(self.releasing) < _MOST_OWED:
            self.releasing.spawn(self._give_back(lock), name="cache-unlock")

    async def _give_back(self, lock: _Hold) -> None:
        loop = asyncio.get_running_loop()
        over, told, pause = loop.time() + lock.ttl, 0, _SOON
        while loop.time() < over:
            try:
                if await self._call(lock.release):
                    return
                told += 1
                if told == _TOLD:
                    return
            except CacheUnavailable:
                over = loop.time() + lock.ttl  # its life begins when Redis reads of it, which it may not have yet
            except CommandRejected as problem:
                if _for_good(problem):
                    return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LATEST)


def _for_good(problem: Exception) -> bool:
    """Whether asking again would change nothing."""
    return isinstance(problem, CommandRejected) and problem.code == "NOPERM"
