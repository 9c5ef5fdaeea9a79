"""Filling a cold key: one load across tasks and processes, and never an old value over a newer one.

The protocol, "a token per fill, absent means no" (leases as in Nishtala et al., "Scaling Memcache at Facebook",
NSDI 2013; the model in ``tests/model`` checks it against every interleaving, eviction included):

- a miss takes, in one step on the server, either the value or the right to fill it: ``lease:{key}`` with a random
  token;
- an invalidation removes lease and value; the fill is a compare-and-set on the token, so a load that began before
  an acknowledged invalidation can never land, also when the lease was evicted;
- where the source says that there is none, value and last good value go, in one step, under the same condition;
- whoever does not get the lease waits for the server's push that key or lease has changed, then looks again;
- the lease is renewed while the loader runs, so a leader that is killed is replaced when its lease ends.

Redis away, or switched off: singleflight in this process, then the loader. What nothing on Redis alone can close: a
loader that reads from a lagging replica, an invalidation sent before the commit, a writer that dies between commit and
invalidation, a failover that loses an acknowledged delete.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from ..background import BackgroundTasks
from ..coherence.near_cache import MISSING
from ..core.engine import Engine
from ..exceptions import TransportError, UndecodableValue, UnserialisableValue
from ..serialization import codec
from .lease import GRANTED, LOOK_AGAIN, VALUE, Lease, Leases
from .policy import GONE, EntryOptions
from .singleflight import Singleflight
from .waiters import Waiters

logger = logging.getLogger("cache")
SLOW: Final = 0.25
"""Seconds a caller waits for a loader when there is a last good value to answer with."""

Loader = Callable[[], Awaitable[Any]]


class Filler:
    """Loads what is missing. One per cache.

    Attributes:
        flights: loads that callers wait for.
        waiters: callers that wait for another process's load.
        leases: the rights to fill that this process holds.
        background: loads and refreshes that go on without a caller.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.flights = Singleflight()
        self._refreshing = Singleflight()
        self._asked: set[str] = set()  # keys that somebody began to look for in this turn of the loop
        self.waiters = Waiters()
        self.leases = Leases(engine, self.waiters)
        self.background = BackgroundTasks()
        engine.on_change = self.waiters.changed

    def detach(self, names: Iterable[str]) -> None:
        """An invalidation of these keys: later callers start a load of their own."""
        self.flights.detach(names)
        self._refreshing.detach(names)

    def detach_all(self) -> None:
        """An invalidation of anything."""
        self.flights.detach_all()
        self._refreshing.detach_all()

    async def close(self) -> None:
        """Cancel what is under way."""
        await self.flights.close()
        await self._refreshing.close()
        await self.background.cancel()
        await self.leases.close()

    def busy(self, key: str) -> bool:
        """Whether others in this process are at ``key``: they load it, or began to look in this turn of the loop.

        Whoever comes now need not ask Redis by himself: :meth:`fill` tells him what they find.
        """
        if key in self.flights or key in self._asked:
            return True
        if not self._asked:
            asyncio.get_running_loop().call_soon(self._asked.clear)
        self._asked.add(key)
        return False

    async def fill(
        self, key: str, loader: Loader, terms: EntryOptions, began: float, *, failed: bool = False
    ) -> tuple[Any, bool]:
        """The value, and whether it was there; loaded once whoever else asks. Raises what the loader raises.

        Args:
            key: the key.
            loader: makes the value.
            terms: how long it may be used.
            began: loop time at which the caller was asked; from then on the deadline counts.
            failed: whether Redis has failed the caller already, and that was counted.
        """
        value, raw = await self.flights.join(key, lambda: self._fly(key, loader, terms, began, failed))
        return (value, False) if raw is None else (self._decoded(key, raw), True)  # to each his own

    def refresh(self, key: str, loader: Loader, terms: EntryOptions, old: int) -> None:
        """Load anew in the background, unless somebody is at it or has just been. ``old``: milliseconds left."""
        if key in self._refreshing:
            return
        flight = self._refreshing.join(key, lambda: self._renew(key, loader, terms, old))
        self.background.spawn(flight, name="cache-refresh")

    # -- flights ---------------------------------------------------------------------------------------

    async def _fly(
        self, key: str, loader: Loader, terms: EntryOptions, began: float, failed: bool
    ) -> tuple[Any, bytes | None]:
        """The value, and as it was stored if it was there."""
        lease = Lease(key, began + self._engine.deadline - asyncio.get_running_loop().time())
        while self._engine.enabled:
            waiter = self.waiters.wait(key)  # before looking, so that no change goes unseen
            try:
                try:
                    kind, *rest = await self.leases.acquire(lease, last_good=terms.stale_for > 0)
                except TransportError as problem:
                    if getattr(problem, "code", "") == "WRONGTYPE" and not lease.paid:
                        raise UndecodableValue("of another type") from None
                    if not failed:
                        self._engine.count_error(problem)
                    return await _loaded(loader), None
                if kind == VALUE:
                    return self._decoded(key, rest[0]), rest[0]
                last = self._last_good(key, rest[0])
                if kind == GRANTED:
                    return await self._lead(lease, loader, terms, last), None
                if last is not MISSING:
                    await asyncio.wait({waiter}, timeout=SLOW)
                    if not waiter.done():
                        return last, None
                else:
                    left = max(int(rest[1]), 1) / 1000
                    await asyncio.wait({waiter}, timeout=left if self._engine.tracking else min(left, LOOK_AGAIN))
            except UndecodableValue as problem:
                self._engine.count_undecodable(key, problem)
                self._engine.pending.add(key)  # it goes before the next try
            finally:
                self.waiters.leave(key, waiter)
        return await _loaded(loader), None

    async def _lead(self, lease: Lease, loader: Loader, terms: EntryOptions, last: Any) -> Any:
        """Load under the lease. With a last good value, a loader that is slow or fails is answered with it."""
        load = self.background.spawn(self._load(lease, loader, terms), name="cache-load")
        try:
            if last is MISSING:
                return await load
            await asyncio.wait({load}, timeout=SLOW)
        except asyncio.CancelledError:
            load.cancel()
            self.leases.release_later(lease)  # a load that has not yet taken its first step cannot do it itself
            raise
        if not load.done():
            return last  # the load goes on, and fills for the next one
        if (problem := load.exception()) is not None:
            if isinstance(problem, UnserialisableValue):
                raise problem  # a mistake of the developer's, and to be seen
            logger.warning("a loader failed (%s): the last good value is served", type(problem).__name__)
            return last
        return load.result()

    async def _load(self, lease: Lease, loader: Loader, terms: EntryOptions) -> Any:
        # Whoever asks after the lease was lost asks anew, instead of joining a load that may have begun before.
        holding = self.leases.hold(lease, lambda: self.flights.detach((lease.key,)))
        renewing = asyncio.create_task(holding, name="cache-lease")
        try:
            value = await loader()
            await self._store(lease, value, terms)
        except BaseException:
            self.leases.release_later(lease)
            raise
        finally:
            renewing.cancel()
        return value

    async def _store(self, lease: Lease, value: Any, terms: EntryOptions) -> None:
        key, pending = lease.key, self._engine.pending
        lives, raw = terms.milliseconds(value), codec.encode(value)
        if len(raw) > self._engine.max_value_bytes:
            logger.warning("a loaded value of %d bytes is larger than CACHE_MAX_VALUE_BYTES: not kept", len(raw))
            lives = GONE, GONE
        began = pending.serial
        if pending.newest(key) > lease.paid:
            # Invalidated since the load began, without Redis knowing of it yet.
            self.leases.release_later(lease)
            return
        self._engine.near.drop(key)
        if lives[0] == GONE:
            raw = b""
        elif (sealer := self._engine.sealer) is not None:
            raw = sealer.seal(key, raw)
        try:
            if await self.leases.fill(lease, raw, lives):
                pending.settle(key, began)
        except TransportError as problem:
            self._engine.count_error(problem)
            self.leases.release_later(lease)  # it may still stand there, and everybody would wait for it
            if lives[0] == GONE:
                pending.add(key)  # and what was there before may, which the source no longer knows

    async def _renew(self, key: str, loader: Loader, terms: EntryOptions, old: int) -> None:
        lease = Lease(key, self._engine.deadline)
        try:
            granted = await self.leases.acquire_to_refresh(lease, old)
        except TransportError as problem:
            self._engine.count_error(problem)
            return
        if granted:
            try:
                await self._load(lease, loader, terms)
            except Exception as problem:
                logger.warning("a loader failed (%s): the value that is there stays", type(problem).__name__)

    def _decoded(self, key: str, raw: bytes) -> Any:
        sealer = self._engine.sealer
        return codec.decode(
            codec.checked_size(raw if sealer is None else sealer.open(key, raw), self._engine.max_value_bytes)
        )

    def _last_good(self, key: str, raw: bytes | None) -> Any:
        """The last good value; MISSING where there is none, or none that can be decoded."""
        if raw is None:
            return MISSING
        try:
            return self._decoded(key, raw)
        except UndecodableValue as problem:
            self._engine.count_undecodable(key, problem)
            return MISSING


async def _loaded(loader: Loader) -> Any:
    """What the loader returns where Redis is not asked to keep it. A value it could not keep is a mistake there too."""
    value = await loader()
    codec.encode(value)
    return value
