"""Distributed locks, on redis-py's own (a token per holder, released only by that holder).

A lock that cannot be taken says so: :class:`LockUnavailable` is raised when somebody else holds it and when
Redis is away, because code that goes on without the lock it asked for is worse than code that stops. So locks
are for work that may be left undone; nothing on the way to an answer takes one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockError

from .link import LinkDown, Refused
from .stats import Call

logger = logging.getLogger("cache")
_RETRY = 0.05  # seconds between two tries while somebody else holds the lock


class LockUnavailable(Exception):
    """The lock was not taken: held by somebody else, or Redis is away. The text says which."""


class LockLost(Exception):
    """The lock expired while it was held: the work under it may have overlapped with another holder's."""


@asynccontextmanager
async def hold(call: Call, name: str, ttl: int, wait: float) -> AsyncIterator[None]:
    """Hold the lock ``name`` for the time of the ``async with`` block.

    Args:
        call: runs an operation against Redis within the deadline.
        name: the lock's key.
        ttl: seconds after which the lock frees itself.
        wait: seconds to wait for another holder.

    Raises:
        LockUnavailable: it was not taken.
        LockLost: the block ended well, but later than ``ttl``.
    """
    lock: Lock | None = None

    async def acquire(client: Redis) -> bool:
        nonlocal lock
        lock = lock or client.lock(name, timeout=ttl, blocking=False, thread_local=False)
        return bool(await lock.acquire())

    give_up = asyncio.get_running_loop().time() + wait
    try:
        while not await call(acquire):
            if asyncio.get_running_loop().time() + _RETRY > give_up:
                raise LockUnavailable(f"{name} is held by somebody else")
            await asyncio.sleep(_RETRY)
    except (LinkDown, Refused):
        raise LockUnavailable(f"{name} cannot be taken: Redis is away") from None

    try:
        yield
    except BaseException:
        await _release(call, lock)
        raise
    if not await _release(call, lock):
        raise LockLost(f"{name} expired after {ttl} s, before the work under it was done")


async def _release(call: Call, lock: Lock | None) -> bool:
    """Let go. False if the lock was no longer ours; True too when Redis is away (the TTL frees it then)."""
    assert lock is not None

    async def release(client: Redis) -> bool:
        try:
            await lock.release()
        except LockError:
            return False
        return True

    try:
        return bool(await call(release))
    except (LinkDown, Refused):
        logger.warning("[REDIS] Warning: a lock could not be released; it frees itself when its TTL ends")
        return True
