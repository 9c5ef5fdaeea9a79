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
from collections.abc import Collection, Hashable
from typing import Any, Final

from ..background import BackgroundTasks, loop_time, set_within
from ..core.engine import Engine
from ..exceptions import (
    LoadCycle,
    LoadTimeout,
    TransportError,
    UndecodableValue,
    UnserialisableValue,
    ValueTooLarge,
)
from ..serialization.codec import NONE
from .lease import GRANTED, POLL_EVERY, SLOW, VALUE, Lease, Leases, patience
from .loaders import Loader, Loaders
from .policy import DELETE, EntryOptions
from .singleflight import Singleflight

logger = logging.getLogger("cache")
PROGRAMMING_ERRORS: Final = (UnserialisableValue, LoadCycle)
"""Raised also if there is a last good value: they must be seen."""
_STALE, _REFRESH = "stale", "refresh"  # flights of a key beside the plain one


class Filler:
    """Loads what is missing.

    Attributes:
        waiters: callers that wait for a change of a key.
        loads: loads that callers of this process wait for, and refreshes.
        loaders: the loaders that run, here or for a load of another key.
        leases: leases that this process holds, or is releasing.
        background: loads and refreshes that continue without a caller.
    """

    def __init__(self, engine: Engine, address: str) -> None:
        self._engine = engine
        self._transport = engine.transport
        self._serializer = engine.serializer
        self.waiters = engine.waiters
        self.loads = Singleflight()
        self._asked: set[Hashable] = set()  # keys that a caller began to read in this loop iteration
        self.leases = Leases(engine)
        self.loaders = Loaders(address)
        self.background = BackgroundTasks()

    def detach(self, names: Collection[str]) -> None:
        """These keys were invalidated: later callers begin a load of their own."""
        if self.loads:
            self.loads.detach(flight for key in names for flight in (key, (_STALE, key), (_REFRESH, key)))

    async def close(self) -> None:
        """Cancel what is under way."""
        await self.loads.close()
        await self.background.cancel()
        await self.loaders.close()
        await self.leases.close()

    def busy(self, key: str, options: EntryOptions) -> bool:
        """Whether another caller of this process loads ``key``, or began to read it in this loop iteration.

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
            loader: makes the value. What it raises is raised, as are LoadCycle and LoadTimeout.
            options: how long it may be used.
            began: loop time of the caller's request, from which its deadline counts.
            failed: whether Redis has failed this caller already, and that was counted.
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
        if (flight := (_REFRESH, key)) not in self.loads:
            refresh = self.loads.join(flight, lambda: self._refresh(key, loader, options, old_ms))
            self.background.spawn(refresh, name="cache-refresh")

    async def _find_or_load(
        self, key: str, loader: Loader, options: EntryOptions, began: float, failed: bool
    ) -> tuple[bytes, bool]:
        """The value, encoded, and whether it was in the cache."""
        lease = Lease(key, began + self._transport.deadline - loop_time())
        give_up = loop_time() + options.load_timeout  # on the loads of other processes
        while self._transport.enabled and loop_time() < give_up:
            with self.waiters.waiting(key) as changed:  # before the look, so that no change is missed
                try:
                    kind, *rest = await self.leases.acquire(lease, last_good=options.stale_for > 0)
                    if kind == VALUE:
                        return self._readable(key, rest[0]), True
                except UndecodableValue as problem:
                    self._engine.count_undecodable(key, problem)
                    self._engine.pending.add(key)  # the next attempt deletes it first
                    continue
                except TransportError as problem:
                    if not failed:
                        self._engine.count_error(problem)
                    break
                last_good = self._last_good(key, rest[0])
                if kind == GRANTED:
                    return await self._lead(lease, loader, options, last_good), False
                if last_good is not None:
                    if not await set_within(changed, patience(rest[1])):
                        return last_good, False
                else:
                    left = min(max(int(rest[1]), 1) / 1000, give_up - loop_time())
                    await set_within(changed, left if self._engine.servers.tracks(key) else min(left, POLL_EVERY))
        return await self._loaded(key, loader, options), False

    async def _lead(self, lease: Lease, loader: Loader, options: EntryOptions, last_good: bytes | None) -> bytes:
        """Load under the lease, and return the value encoded; the last good one if the loader is slow or fails."""
        if last_good is None:
            return await self._load(lease, loader, options)
        load = self.background.spawn(self._load(lease, loader, options), name="cache-load")
        try:
            await asyncio.wait({load}, timeout=SLOW)
        except asyncio.CancelledError:
            load.cancel()
            self.leases.release_later(lease)  # a load that has not taken its first step cannot release it
            raise
        if load.done() and not load.cancelled():
            problem = load.exception()
            if problem is None or isinstance(problem, PROGRAMMING_ERRORS):
                return load.result()
        load.add_done_callback(_log_failure)  # one that still runs continues, and fills for the next caller
        return last_good

    async def _load(self, lease: Lease, loader: Loader, options: EntryOptions) -> bytes:
        """Load under the lease, store the value, and return it encoded. Raises what the loader raises."""
        # A caller that comes after the lease was lost must not join: this load may have begun before an invalidation.
        holding = self.leases.hold(lease, lambda: self.detach((lease.key,)))
        renewing = asyncio.create_task(holding, name="cache-lease")
        try:
            plain = await self._loaded(lease.key, loader, options)
            await self._store(lease, plain, options)
        except BaseException as problem:
            failed = isinstance(problem, Exception) and not isinstance(problem, PROGRAMMING_ERRORS)
            self.leases.release_later(lease, options.retry_after if failed else 0.0)
            raise
        finally:
            renewing.cancel()
        return plain

    async def _loaded(self, key: str, loader: Loader, options: EntryOptions) -> bytes:
        """What the loader returns, encoded: an unserialisable value is an error with or without Redis."""
        return self._serializer.encode(await self.loaders.run(key, loader, options.load_timeout))

    async def _store(self, lease: Lease, plain: bytes, options: EntryOptions) -> None:
        key, pending = lease.key, self._engine.pending
        ttls_ms = options.ttls_ms(none=plain == NONE)
        try:
            raw = self._serializer.seal(key, plain)
        except ValueTooLarge as problem:
            logger.warning("a loaded value is not stored: %s", problem)
            raw, ttls_ms = b"", (DELETE, DELETE)
        sequence = pending.sequence
        if pending.newest(key) > lease.delivered:
            # Invalidated since the load began, and Redis has not acknowledged it yet.
            self.leases.release_later(lease)
            return
        self._engine.near.drop(key)
        try:
            if await self.leases.fill(lease, raw, ttls_ms):
                pending.acknowledge_store(key, sequence)
        except TransportError as problem:
            self._engine.count_error(problem)
            self.leases.release_later(lease)
            if ttls_ms[0] == DELETE:
                pending.add(key)  # the old value may still be there, and the source no longer has it

    async def _refresh(self, key: str, loader: Loader, options: EntryOptions, old_ms: int) -> None:
        lease = Lease(key, self._transport.deadline)
        try:
            granted = await self.leases.acquire_to_refresh(lease, old_ms)
        except TransportError as problem:
            self._engine.count_error(problem)
            return
        if granted:
            try:
                await self._load(lease, loader, options)
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


def _flight(key: str, options: EntryOptions) -> Hashable:
    """The flight to join: callers who take the last good value wait for no load of callers who do not."""
    return (_STALE, key) if options.stale_for else key


def _log_failure(load: asyncio.Task[bytes]) -> None:
    """Log why the last good value was served. A time-out was logged when it happened."""
    if not load.cancelled() and (problem := load.exception()) and not isinstance(problem, LoadTimeout):
        logger.warning("a loader failed (%s): the last good value is served", type(problem).__name__)
