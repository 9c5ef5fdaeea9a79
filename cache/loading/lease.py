"""The right to fill a key: asked for, renewed while the loader runs, used once, or given back.

``lease:{key}`` holds a random token. An invalidation removes it, and with it the right; so does an eviction. What the
protocol guarantees is said in :mod:`cache.loading.fill`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Final

from .. import keys
from ..background import BackgroundTasks
from ..coherence.user_index import index_entry
from ..core.engine import Engine
from ..exceptions import CommandNotSent, CommandRejected, TransportError
from ..transport.scripts import ACQUIRE, FILL, REFRESH, RELEASE, RENEW
from .waiters import Waiters

LEASE: Final = 3.0
"""Seconds after which a leader that was killed is replaced."""
_RENEW: Final = LEASE / 3
LOOK_AGAIN: Final = 0.05
"""Seconds between two looks at a lease where the server does not push."""
_LEAST: Final = 0.1  # share of a deadline that every step is given

VALUE, GRANTED = 1, 2
"""What asking for a lease may find: the value, or the right to fill it. Otherwise somebody else has that."""


@dataclass(slots=True)
class Lease:
    """The right to fill a key, once it has been granted.

    Attributes:
        key: the key.
        spare: seconds of the deadline that are left for Redis; the loader's time does not count.
        paid: serial number of the newest owed invalidation that was delivered before the load began.
        token: what stands in the key ``lease:{...}``.
    """

    key: str
    spare: float
    paid: int = 0
    token: str = field(default_factory=lambda: token_hex(8))

    @property
    def names(self) -> tuple[str, str, str]:
        """The key, its lease, and its last good value."""
        return self.key, keys.lease(self.key), keys.stale(self.key)


class Leases:
    """Asks Redis for leases and looks after those it got.

    Args:
        engine: sends the commands.
        waiters: tells of keys that have changed.
    """

    def __init__(self, engine: Engine, waiters: Waiters) -> None:
        self._engine = engine
        self._waiters = waiters
        self.releasing = BackgroundTasks()

    async def acquire(self, lease: Lease, *, last_good: bool) -> list[Any]:
        """Ask for the value, or else the right to fill it. Raises TransportError.

        Args:
            lease: what to ask for.
            last_good: whether the last good value is wanted too.
        """
        before = index_entry(lease.key)
        if self._engine.pending and (debt := self._engine.pending.newest(lease.key)):
            # An invalidation that is still owed comes first, or the old value would be taken for a hit.
            lease.paid = debt
            # Where there is only a doubt, a last good value may yet be one: it stays, and is not used.
            guards = lease.names[1:] if self._engine.pending.owed(lease.key) else lease.names[1:2]
            before = (("UNLINK", *guards), ("UNLINK", lease.key), *before)
            last_good = False
        asked = _now()
        wanted = (lease.token, _milliseconds(), int(last_good))
        try:
            reply: list[Any] = await self._engine.run(
                ACQUIRE, lease.names, *wanted, before=before, ends=self._ends(lease)
            )
        except TransportError as problem:
            if not isinstance(problem, CommandNotSent) and getattr(problem, "code", "") != "WRONGTYPE":
                self.release_later(lease)  # it may have been granted all the same
            raise
        except asyncio.CancelledError:
            self.release_later(lease)
            raise
        finally:
            lease.spare -= _now() - asked
        return reply

    async def acquire_to_refresh(self, lease: Lease, old: int) -> bool:
        """Ask for the right to replace a value that has ``old`` milliseconds left at most. Raises TransportError."""
        try:
            granted = await self._engine.run(
                REFRESH, lease.names[:2], lease.token, _milliseconds(), old, before=index_entry(lease.key)
            )
        except (TransportError, asyncio.CancelledError) as problem:
            if not isinstance(problem, CommandNotSent):
                self.release_later(lease)
            raise
        return bool(granted)

    async def fill(self, lease: Lease, raw: bytes, lives: tuple[int, int]) -> bool:
        """Store ``raw`` for so many milliseconds, see FILL, if the lease still holds. Raises TransportError."""
        return bool(await self._engine.run(FILL, lease.names, lease.token, raw, *lives, ends=self._ends(lease)))

    async def hold(self, lease: Lease, on_lost: Callable[[], None]) -> None:
        """Renew the lease until it is not ours any more: invalidated or evicted, and nothing can be filled by it."""
        change = self._waiters.wait(lease.key)
        try:
            while True:
                await asyncio.wait({change}, timeout=_RENEW if self._engine.tracking else LOOK_AGAIN)
                self._waiters.leave(lease.key, change)
                change = self._waiters.wait(lease.key)  # before looking, so that no change goes unseen
                try:
                    if not await self._engine.run(RENEW, lease.names[1:2], lease.token, _milliseconds()):
                        on_lost()
                        return
                except TransportError as problem:
                    self._count_refusal(problem)
        finally:
            self._waiters.leave(lease.key, change)

    def release_later(self, lease: Lease) -> None:
        """Give it back, so that nobody waits for a lease that nobody uses."""
        self.releasing.spawn(self._release(lease), name="cache-release")

    async def close(self) -> None:
        """Give back what is being given back, or whoever asks for these keys next would wait."""
        await self.releasing.ended(2 * self._engine.deadline)
        await self.releasing.cancel()

    async def _release(self, lease: Lease) -> None:
        try:
            await self._engine.run(RELEASE, lease.names[1:2], lease.token)
        except TransportError as problem:
            self._count_refusal(problem)
            if self._engine.enabled:  # switched off, nobody tells Redis: it ends by itself
                # It must go, whose ever it is by then: what another one loads under it is not kept, that is all.
                self._engine.pending.add(lease.names[1])

    def _count_refusal(self, problem: Exception) -> None:
        """That Redis is away has been counted, or will be, for the call that all this is done for."""
        if isinstance(problem, CommandRejected):
            self._engine.count_error(problem)

    def _ends(self, lease: Lease) -> float:
        """When to stop waiting for Redis in the next step. A little is always left: a reply may be there already."""
        return _now() + max(lease.spare, self._engine.deadline * _LEAST)


def _milliseconds() -> int:
    return int(LEASE * 1000)


def _now() -> float:
    return asyncio.get_running_loop().time()
