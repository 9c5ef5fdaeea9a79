"""Fills a cold key: one load across tasks and processes, and never an old value over a newer one.

Leases as in Nishtala et al., "Scaling Memcache at Facebook" (NSDI 2013). The model in ``tests/model`` checks the
protocol against every interleaving, eviction included:

- A miss returns, in one step on the server, either the value or the right to fill it: ``lease:{key}`` with a random
  token.
- An invalidation deletes lease and value. A fill compares the token, so a load that began before an acknowledged
  invalidation cannot store, also if the lease was evicted: no token, no fill.
- If the source has no value, value and last good value are deleted in one step, under the same condition.
- A caller without the lease waits for the push that key or lease has changed, then asks again.
- The lease is renewed while the loader runs, so a leader that was killed is replaced when its lease expires. A loader
  that does not end within ``load_timeout`` is cancelled, and its lease released.
- While a load is slow, and for ``retry_after`` seconds after one that failed, callers get the last good value at once.

With Redis away, or the cache switched off: singleflight in this process, then the loader. Redis alone cannot prevent a
loader that reads from a lagging replica, an invalidation sent before the commit, a writer that dies between commit and
invalidation, or a failover that loses an acknowledged delete.

``stale_for`` is stale-if-error of RFC 5861.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any

from .. import keys
from ..background import BackgroundTasks
from ..core.engine import Engine
from ..exceptions import LoadTimeout, TransportError, UndecodableValue, rejected_with
from .leader import Leader
from .lease import GRANTED, POLL_EVERY, VALUE, Lease, Leases, patience
from .loaders import Loader, Loaders
from .policy import EntryOptions
from .singleflight import Singleflight
from .waiters import Waiters

logger = logging.getLogger("cache")


class Filler:
    """Loads what is missing.

    Args:
        engine: the shared parts of the cache.
        waiters: callers that wait for a change of a key.
        address: names the Redis.

    Attributes:
        loads: loads that callers of this process wait for.
        loaders: the loaders that run, here or for a load of another key.
        leases: leases that this process holds, or is releasing.
        background: loads and refreshes that continue without a caller.
    """

    def __init__(self, engine: Engine, waiters: Waiters, address: str) -> None:
        self._engine = engine
        self._transport = engine.transport
        self._serializer = engine.serializer
        self.waiters = waiters
        self.loads = Singleflight()
        self._refreshes = Singleflight()
        self._asked: set[str] = set()  # keys that a caller began to read in this turn of the loop
        self.leases = Leases(engine, waiters)
        self.loaders = Loaders(address)
        self.background = BackgroundTasks()
        self._leader = Leader(engine, self.leases, self.loaders, self.background, on_lost=self.detach)

    def detach(self, names: Collection[str]) -> None:
        """These keys were invalidated: later callers begin a load of their own."""
        if self.loads:
            self.loads.detach([*names, *map(keys.stale, names)])
        self._refreshes.detach(names)

    def detach_all(self) -> None:
        """Any key may have been invalidated."""
        self.loads.detach_all()
        self._refreshes.detach_all()

    async def close(self) -> None:
        """Cancel what is under way."""
        await self.loads.close()
        await self._refreshes.close()
        await self.background.cancel()
        await self.loaders.close()
        await self.leases.close()

    def busy(self, key: str, options: EntryOptions) -> bool:
        """Whether another caller of this process loads ``key``, or began to read it in this turn of the loop.

        A load is already in flight then; join it with :meth:`fill` instead of querying Redis.
        """
        flight = _flight(key, options)
        if flight in self.loads or flight in self._asked:
            return True
        if not self._asked:
            asyncio.get_running_loop().call_soon(self._asked.clear)
        self._asked.add(flight)
        return False

    async def fill(
        self, key: str, loader: Loader, options: EntryOptions, began: float, *, failed: bool = False
    ) -> tuple[Any, bool]:
        """Return the value, loaded once however many callers ask, and whether it was in the cache.

        Args:
            key: the key.
            loader: makes the value.
            options: how long it may be used.
            began: loop time of the caller's request, from which its deadline counts.
            failed: whether Redis has failed this caller already, and that was counted.

        Raises:
            LoadCycle: the loader asked for the key that it loads.
            LoadTimeout: the loader did not end in time.
            Exception: what the loader raises.
        """
        pending = self._engine.pending
        with self.loaders.awaiting(key):
            plain, hit = await self.loads.join(
                _flight(key, options),
                lambda: self._find_or_load(key, loader, options, began, failed),
                now=pending.sequence,
                since=pending.newest_invalidation(key) if pending else 0,  # another loop may have enqueued it
            )
        return self._serializer.decode(plain), hit  # decode per caller: values are mutable

    def refresh(self, key: str, loader: Loader, options: EntryOptions, old_ms: int) -> None:
        """Load again in the background, unless that is under way or just done. ``old_ms``: milliseconds left."""
        if key in self._refreshes:
            return
        refresh = self._refreshes.join(key, lambda: self._refresh(key, loader, options, old_ms))
        self.background.spawn(refresh, name="cache-refresh")

    async def _find_or_load(
        self, key: str, loader: Loader, options: EntryOptions, began: float, failed: bool
    ) -> tuple[bytes, bool]:
        """The value, encoded, and whether it was in the cache."""
        loop = asyncio.get_running_loop()
        lease = Lease(key, began + self._transport.deadline - loop.time())
        give_up = loop.time() + options.load_timeout  # on the loads of other processes
        while self._transport.enabled and loop.time() < give_up:
            change = self.waiters.wait(key)  # before the look, so that no change is missed
            try:
                try:
                    kind, *rest = await self.leases.acquire(lease, last_good=options.stale_for > 0)
                except TransportError as problem:
                    if rejected_with(problem, "WRONGTYPE") and not lease.delivered:
                        raise UndecodableValue("of another type") from None
                    if not failed:
                        self._engine.count_error(problem)
                    break
                if kind == VALUE:
                    return self._readable(key, rest[0]), True
                last_good = self._last_good(key, rest[0])
                if kind == GRANTED:
                    return await self._leader.lead(lease, loader, options, last_good), False
                if last_good is not None:
                    await asyncio.wait({change}, timeout=patience(rest[1]))
                    if not change.done():
                        return last_good, False
                else:
                    left = min(max(int(rest[1]), 1) / 1000, give_up - loop.time())
                    await asyncio.wait({change}, timeout=left if self._engine.tracking else min(left, POLL_EVERY))
            except UndecodableValue as problem:
                self._engine.count_undecodable(key, problem)
                self._engine.pending.add(key)  # the next attempt deletes it first
            finally:
                self.waiters.leave(key, change)
        return await self._leader.loaded(key, loader, options), False

    async def _refresh(self, key: str, loader: Loader, options: EntryOptions, old_ms: int) -> None:
        lease = Lease(key, self._transport.deadline)
        try:
            granted = await self.leases.acquire_to_refresh(lease, old_ms)
        except TransportError as problem:
            self._engine.count_error(problem)
            return
        if granted:
            try:
                await self._leader.load(lease, loader, options)
            except LoadTimeout:
                pass  # logged
            except Exception as problem:
                logger.warning("a loader failed (%s): the value that is there stays", type(problem).__name__)

    def _last_good(self, key: str, raw: bytes | None) -> bytes | None:
        """The last good value, encoded; None if there is none that can be decoded."""
        try:
            return None if raw is None else self._readable(key, raw)
        except UndecodableValue as problem:
            self._engine.count_undecodable(key, problem)
            return None

    def _readable(self, key: str, raw: bytes) -> bytes:
        """The plain bytes of a stored value that can be decoded. Raises UndecodableValue."""
        plain = self._serializer.open(key, raw)
        self._serializer.decode(plain)
        return plain


def _flight(key: str, options: EntryOptions) -> str:
    """The flight to join: callers who take the last good value wait for no load of callers who do not."""
    return keys.stale(key) if options.stale_for else key
