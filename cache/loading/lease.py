"""Leases: the right to fill a key, acquired, renewed while the loader runs, then used once or released.

``lease:{key}`` holds a random token. An invalidation deletes it, and with it the right; so does an eviction. The
protocol is described in ``loading.fill``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Final

from .. import keys
from ..background import BackgroundTasks, loop_time, set_within
from ..coherence.user_index import index_entry
from ..core.engine import Engine
from ..exceptions import CommandNotSent, CommandRejected, TransportError, UndecodableValue, rejected_with
from ..transport.client import Command
from ..transport.scripts import ACQUIRE, FILL, REFRESH, RELEASE, RENEW, Script

LEASE_SECONDS: Final = 3.0
"""Seconds after which a leader that was killed is replaced."""
SLOW: Final = 0.25
"""Seconds from the begin of a load for which callers wait if there is a last good value to answer with."""
RENEW_EVERY: Final = LEASE_SECONDS / 3
POLL_EVERY: Final = 0.05
"""Seconds between two looks at a lease where the server does not push changes."""
_LEAST_SHARE: Final = 0.1  # share of the deadline that every step gets, however long the steps before took

VALUE, GRANTED = 1, 2
"""Replies to :meth:`Leases.acquire`: the value, or the right to fill. Any other reply: another caller has the lease."""


@dataclass(slots=True)
class Lease:
    """The right to fill a key, once it has been granted.

    Attributes:
        key: the key.
        budget: seconds of the caller's deadline that are left for Redis; the loader's time does not count.
        delivered: sequence number of the newest pending invalidation that was delivered with the request.
        token: what ``lease:{key}`` holds.
    """

    key: str
    budget: float
    delivered: int = 0
    token: str = field(default_factory=lambda: token_hex(8))

    @property
    def names(self) -> tuple[str, str, str]:
        """The key, its lease, and its last good value."""
        return self.key, keys.lease(self.key), keys.stale(self.key)


class Leases:
    """Acquires, renews, uses and releases leases.

    Attributes:
        releasing: releases under way.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._transport = engine.transport
        self.releasing = BackgroundTasks()

    async def acquire(self, lease: Lease, *, last_good: bool) -> list[Any]:
        """Ask for the value, or else for the right to fill it; with ``last_good``, for the last good value too.

        See ``ACQUIRE`` for the reply.

        Raises:
            TransportError: Redis gave no usable reply.
            UndecodableValue: the key holds another type, and its deletion was not pending.
        """
        before = index_entry(lease.key)
        pending = self._engine.pending
        if pending and (sequence := pending.newest(lease.key)):
            # Deliver the pending invalidation first, or the old value would count as a hit.
            lease.delivered = sequence
            # In a quarantine the last good value may still be right: it stays, and is not used.
            delete = self._transport.capabilities.delete
            guards = lease.names[1:] if pending.newest_invalidation(lease.key) else lease.names[1:2]
            before = ((delete, *guards), (delete, lease.key), *before)
            last_good = False
        asked = loop_time()
        try:
            reply: list[Any] = await self._ask(lease, ACQUIRE, lease.names, int(last_good), before=before)
        except CommandRejected as problem:
            if problem.code == "WRONGTYPE" and not lease.delivered:
                raise UndecodableValue("of another type") from None
            raise
        finally:
            lease.budget -= loop_time() - asked
        return reply

    async def acquire_to_refresh(self, lease: Lease, old_ms: int) -> bool:
        """Ask for the right to replace a value that has at most ``old_ms`` milliseconds left.

        Raises:
            TransportError: Redis gave no usable reply.
        """
        return bool(await self._ask(lease, REFRESH, lease.names[:2], old_ms, before=index_entry(lease.key)))

    async def _ask(
        self, lease: Lease, script: Script, names: tuple[str, ...], argument: int, before: Sequence[Command]
    ) -> Any:
        """Run a script that may grant the lease. If its reply is lost, release what it may have granted."""
        lease_ms = int(LEASE_SECONDS * 1000)
        try:
            return await self._transport.run(
                script, names, lease.token, lease_ms, argument, before=before, deadline=self._deadline(lease)
            )
        except (TransportError, asyncio.CancelledError) as problem:
            if not (isinstance(problem, CommandNotSent) or rejected_with(problem, "WRONGTYPE")):
                self.release_later(lease)
            raise

    async def fill(self, lease: Lease, raw: bytes, ttls_ms: tuple[int, int]) -> bool:
        """Store the serialized value if the lease still holds. Returns whether it did; raises TransportError.

        ``ttls_ms``: milliseconds for the value and for its last good value, see ``FILL``.
        """
        deadline = self._deadline(lease)
        return bool(await self._transport.run(FILL, lease.names, lease.token, raw, *ttls_ms, deadline=deadline))

    async def hold(self, lease: Lease, on_lost: Callable[[], None]) -> None:
        """Renew the lease until it is lost: invalidated or evicted, so that its load can no longer fill."""
        with self._engine.waiters.waiting(lease.key) as changed:
            while True:
                await set_within(changed, RENEW_EVERY if self._engine.servers.tracks(lease.key) else POLL_EVERY)
                changed.clear()  # before the look, so that no change is missed
                try:
                    if not await self._transport.run(RENEW, lease.names[1:2], lease.token, _renewed_ms()):
                        on_lost()
                        return
                except TransportError as problem:
                    self._count_rejection(problem)

    def release_later(self, lease: Lease, failed_for: float = 0.0) -> None:
        """Release in the background so waiters need not wait for the lease to expire.

        ``failed_for``: seconds for which the last good value is served at once because the load failed.
        """
        self.releasing.spawn(self._release(lease, int(failed_for * 1000)), name="cache-release")

    async def close(self) -> None:
        """Wait briefly for the releases under way, or the next callers would wait for these leases to expire."""
        await self.releasing.ended(2 * self._transport.deadline)
        await self.releasing.cancel()

    async def _release(self, lease: Lease, failed_ms: int) -> None:
        try:
            await self._transport.run(RELEASE, lease.names[1:], lease.token, failed_ms)
        except TransportError as problem:
            self._count_rejection(problem)
            if self._transport.enabled:  # switched off, nothing is delivered: the lease expires
                # Deleted even if another process holds it by then; the worst case is a load that is not stored.
                self._engine.pending.add(lease.names[1])

    def _count_rejection(self, problem: Exception) -> None:
        """An unavailable Redis is counted for the call that all this is done for, a rejection only here."""
        if isinstance(problem, CommandRejected):
            self._engine.count_error(problem)

    def _deadline(self, lease: Lease) -> float:
        """The loop time at which the next step ends. A little is always left: a reply may have arrived already."""
        return loop_time() + max(lease.budget, self._transport.deadline * _LEAST_SHARE)


def patience(left_ms: int) -> float:
    """Seconds until a load counts as slow whose lease has this long to live."""
    return max(left_ms - _renewed_ms(), 0) / 1000


def _renewed_ms() -> int:
    """Shorter than a new lease by ``SLOW``, so that the rest of a lease shows whether its load is slow."""
    return int((LEASE_SECONDS - SLOW) * 1000)
