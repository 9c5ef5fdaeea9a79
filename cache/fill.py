"""Filling a cold key: one load across tasks and processes, and never an old value over a newer one.

The protocol, "a token per fill, absent means no" (leases as in Nishtala et al., "Scaling Memcache at Facebook",
NSDI 2013; the model in ``tests/model`` checks it against every interleaving, eviction included):

- a miss takes, in one step on the server, either the value or the right to fill it: ``lease:{key}`` with a random
  token;
- an invalidation removes lease and value; the fill is a compare-and-set on the token, so a load that began before
  an acknowledged invalidation can never land, also when the lease was evicted;
- whoever does not get the lease waits for the server's push that key or lease has changed, then looks again;
- the lease is renewed while the loader runs, so a leader that is killed is replaced when its lease ends.

Redis away: singleflight in this process, then the loader. What nothing on Redis alone can close: a loader that reads
from a lagging replica, an invalidation sent before the commit, a writer that dies between commit and invalidation,
a failover that loses an acknowledged delete.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Final

from . import codec, keys
from .engine import FAILURES, Engine
from .flight import Flights
from .near import MISSING
from .scripts import ACQUIRE, FILL, REFRESH, RELEASE, RENEW
from .waiters import Waiters

logger = logging.getLogger("cache")
LEASE: Final = 3.0
"""Seconds after which a leader that was killed is replaced."""
SLOW: Final = 0.25
"""Seconds a caller waits for a loader when there is a last good value to answer with."""
_RENEW: Final = LEASE / 3
_LEAST: Final = 0.1  # share of a deadline that every step is given
_LOOK_AGAIN: Final = 0.05  # seconds, where the server cannot push

Loader = Callable[[], Awaitable[Any]]
_GRANTED, _VALUE = 2, 1


@dataclass(frozen=True, slots=True)
class Terms:
    """How long what a loader returned may be used.

    Attributes:
        ttl: seconds; None for no expiry.
        stale_for: seconds beyond the TTL for which the last good value may stand in for a failing loader.
        negative_ttl: seconds a None is kept; None keeps none.
        spread: share by which a TTL may be shortened at random.
    """

    ttl: int | None
    stale_for: int = 0
    negative_ttl: int | None = None
    spread: float = 0.0

    def milliseconds(self, value: Any) -> tuple[int, int] | None:
        """TTL of the value and of its last good copy, 0 for none; None if the value is not to be kept."""
        ttl = self.negative_ttl if value is None else self.ttl
        if ttl is None:
            return None if value is None else (0, 0)
        spread = int(ttl * 1000 * (1 - self.spread * random.random()))
        return max(1, spread), (ttl + self.stale_for) * 1000 if self.stale_for else 0


@dataclass(slots=True)
class Lease:
    """The right to fill a key, once it has been granted.

    Attributes:
        token: what stands in the key ``lease:{...}``.
        spare: seconds of the deadline that are left for Redis; the loader's time does not count.
        paid: serial number of the newest owed invalidation that was delivered before the load began.
    """

    token: str
    spare: float
    paid: int = 0


class Filler:
    """Loads what is missing. One per cache."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._flights = Flights()
        self._refreshing = Flights()
        self._asked: set[str] = set()  # keys that somebody began to look for in this turn of the loop
        self._waiters = Waiters()
        self._behind: set[asyncio.Task[Any]] = set()
        self._releasing: set[asyncio.Task[None]] = set()
        self.index_entry: Callable[[str], tuple[tuple[Any, ...], ...]] = lambda key: ()
        engine.on_change = self._waiters.changed

    def detach(self, names: Iterable[str]) -> None:
        """An invalidation of these keys: later callers start a load of their own."""
        self._flights.detach(names)
        self._refreshing.detach(names)

    def detach_all(self) -> None:
        """An invalidation of anything."""
        self._flights.detach_all()
        self._refreshing.detach_all()

    async def close(self) -> None:
        """Cancel what is under way."""
        await self._flights.close()
        await self._refreshing.close()
        for task in self._behind:
            task.cancel()
        if self._behind:
            await asyncio.wait(set(self._behind))
        if self._releasing:  # or whoever asks for these keys next would wait for leases that nobody uses
            await asyncio.wait(set(self._releasing), timeout=2 * self._engine.deadline)
            for task in self._releasing:
                task.cancel()

    def busy(self, key: str) -> bool:
        """Whether others in this process are at ``key``: they load it, or began to look in this turn of the loop.

        Whoever comes now need not ask Redis by himself: :meth:`fill` tells him what they find.
        """
        if key in self._flights or key in self._asked:
            return True
        if not self._asked:
            asyncio.get_running_loop().call_soon(self._asked.clear)
        self._asked.add(key)
        return False

    async def fill(self, key: str, loader: Loader, terms: Terms, began: float) -> tuple[Any, bool]:
        """The value, and whether it was there; loaded once whoever else asks. Raises what the loader raises.

        Args:
            key: the key.
            loader: makes the value.
            terms: how long it may be used.
            began: loop time at which the caller was asked; from then on the deadline counts.
        """
        value, raw = await self._flights.join(key, lambda: self._fly(key, loader, terms, began))
        return (value, False) if raw is None else (self._decoded(key, raw), True)  # to each his own

    def refresh(self, key: str, loader: Loader, terms: Terms, old: int) -> None:
        """Load anew in the background, unless somebody is at it or has just been. ``old``: milliseconds left."""
        task = asyncio.create_task(self._refreshing.join(key, lambda: self._renew(key, loader, terms, old)))
        self._keep_behind(task)

    # -- flights ---------------------------------------------------------------------------------------

    async def _fly(self, key: str, loader: Loader, terms: Terms, began: float) -> tuple[Any, bytes | None]:
        """The value, and as it was stored if it was there."""
        lease = Lease(token_hex(8), began + self._engine.deadline - self._now())
        while True:
            waiter = self._waiters.wait(key)  # before looking, so that no change goes unseen
            try:
                try:
                    kind, *rest = await self._acquire(key, lease, terms)
                except FAILURES as problem:
                    if getattr(problem, "code", "") == "WRONGTYPE" and not lease.paid:
                        raise codec.UndecodableValue("of another type") from None
                    self._engine.count_error(problem)
                    self._release_later(key, lease)  # it may have been granted all the same
                    return await loader(), None
                except asyncio.CancelledError:
                    self._release_later(key, lease)
                    raise
                if kind == _VALUE:
                    return self._decoded(key, rest[0]), rest[0]
                last = self._last_good(key, rest[0])
                if kind == _GRANTED:
                    return await self._lead(key, lease, loader, terms, last), None
                if last is not MISSING:
                    await asyncio.wait({waiter}, timeout=SLOW)
                    if not waiter.done():
                        return last, None
                else:
                    left = max(int(rest[1]), 1) / 1000
                    await asyncio.wait({waiter}, timeout=left if self._engine.tracking else min(left, _LOOK_AGAIN))
            except codec.UndecodableValue as problem:
                self._engine.count_undecodable(key, problem)
                self._engine.pending.add(key)  # it goes before the next try
            finally:
                self._waiters.leave(key, waiter)

    async def _acquire(self, key: str, lease: Lease, terms: Terms) -> list[Any]:
        """Ask for the value, or the right to fill."""
        names, before = (key, keys.lease(key), keys.stale(key)), self.index_entry(key)
        if self._engine.pending and (debt := self._engine.pending.newest(key)):
            # An invalidation that is still owed comes first, or the old value would be taken for a hit.
            lease.paid = debt
            before = (("UNLINK", *names[1:]), ("UNLINK", key), *before)
        wanted, asked = (int(LEASE * 1000), int(terms.stale_for > 0)), self._now()
        try:
            reply: list[Any] = await self._engine.run(
                ACQUIRE, names, lease.token, *wanted, before=before, ends=self._ends(lease)
            )
        finally:
            lease.spare -= self._now() - asked
        return reply

    async def _lead(self, key: str, lease: Lease, loader: Loader, terms: Terms, last: Any) -> Any:
        """Load under the lease. With a last good value, a loader that is slow or fails is answered with it."""
        load = asyncio.create_task(self._load(key, lease, loader, terms), name="cache-load")
        try:
            if last is MISSING:
                return await load
            await asyncio.wait({load}, timeout=SLOW)
        except asyncio.CancelledError:
            load.cancel()
            self._keep_behind(load)
            self._release_later(key, lease)  # a load that has not yet taken its first step cannot do it itself
            raise
        if not load.done():
            self._keep_behind(load)  # it goes on, and fills for the next one
            return last
        if (problem := load.exception()) is not None:
            logger.warning("a loader failed (%s): the last good value is served", type(problem).__name__)
            return last
        return load.result()

    async def _load(self, key: str, lease: Lease, loader: Loader, terms: Terms) -> Any:
        renewing = asyncio.create_task(self._hold(key, lease), name="cache-lease")
        try:
            value = await loader()
            await self._store(key, lease, value, terms)
        except BaseException:
            self._release_later(key, lease)
            raise
        finally:
            renewing.cancel()
        return value

    async def _store(self, key: str, lease: Lease, value: Any, terms: Terms) -> None:
        lives, raw, pending = terms.milliseconds(value), codec.encode(value), self._engine.pending
        if large := len(raw) > self._engine.max_value_bytes:
            logger.warning("a loaded value of %d bytes is larger than CACHE_MAX_VALUE_BYTES: not kept", len(raw))
        if lives is None or large or pending.newest(key) > lease.paid:
            # Not to be kept, or invalidated since the load began without Redis knowing of it yet.
            self._release_later(key, lease)
            return
        self._engine.near.drop(key)
        if (sealer := self._engine.sealer) is not None:
            raw = sealer.seal(key, raw)
        try:
            names = (key, keys.lease(key), keys.stale(key))
            filled = await self._engine.run(FILL, names, lease.token, raw, *lives, ends=self._ends(lease))
            if filled and pending.newest(key) <= lease.paid:
                pending.settle(key)
        except FAILURES as problem:
            self._engine.count_error(problem)

    async def _renew(self, key: str, loader: Loader, terms: Terms, old: int) -> None:
        lease = Lease(token_hex(8), self._engine.deadline)
        names, wanted = (key, keys.lease(key)), (int(LEASE * 1000), old)
        try:
            granted = await self._engine.run(REFRESH, names, lease.token, *wanted, before=self.index_entry(key))
        except FAILURES as problem:
            self._engine.count_error(problem)
            self._release_later(key, lease)
            return
        except asyncio.CancelledError:
            self._release_later(key, lease)
            raise
        if granted:
            try:
                await self._load(key, lease, loader, terms)
            except Exception as problem:
                logger.warning("a loader failed (%s): the value that is there stays", type(problem).__name__)

    async def _hold(self, key: str, lease: Lease) -> None:
        """Renew the lease, until it is not ours any more: invalidated or evicted, and what is loaded will not be kept.

        Whoever asks from then on asks anew, instead of joining a load that may have begun before the invalidation.
        """
        change = self._waiters.wait(key)
        try:
            while True:
                await asyncio.wait({change}, timeout=_RENEW)
                self._waiters.leave(key, change)
                change = self._waiters.wait(key)  # before looking, so that no change goes unseen
                try:
                    if not await self._engine.run(RENEW, (keys.lease(key),), lease.token, int(LEASE * 1000)):
                        self._flights.detach((key,))
                        return
                except FAILURES as problem:
                    self._engine.count_error(problem)
        finally:
            self._waiters.leave(key, change)

    async def _release(self, key: str, lease: Lease) -> None:
        try:
            await self._engine.run(RELEASE, (keys.lease(key),), lease.token)
        except FAILURES as problem:
            self._engine.count_error(problem)
            # It must go, whose ever it is by then: what another one loads under it is not kept, that is all.
            self._engine.pending.add(keys.lease(key))

    def _release_later(self, key: str, lease: Lease) -> None:
        """So that nobody waits for a lease that nobody uses."""
        task = asyncio.create_task(self._release(key, lease), name="cache-release")
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

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
        except codec.UndecodableValue as problem:
            self._engine.count_undecodable(key, problem)
            return MISSING

    def _ends(self, lease: Lease) -> float:
        """When to stop waiting for Redis in the next step. A little is always left: a reply may be there already."""
        return self._now() + max(lease.spare, self._engine.deadline * _LEAST)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _keep_behind(self, task: asyncio.Task[Any]) -> None:
        self._behind.add(task)
        task.add_done_callback(self._done_behind)

    def _done_behind(self, task: asyncio.Task[Any]) -> None:
        self._behind.discard(task)
        if not task.cancelled():
            task.exception()
