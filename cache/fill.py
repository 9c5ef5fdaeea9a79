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
from .scripts import ACQUIRE, FILL, RELEASE, RENEW
from .waiters import Waiters

logger = logging.getLogger("cache")
LEASE: Final = 3.0
"""Seconds after which a leader that was killed is replaced."""
SLOW: Final = 0.25
"""Seconds a caller waits for a loader when there is a last good value to answer with."""
_RENEW: Final = LEASE / 3
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


class Filler:
    """Loads what is missing. One per cache."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._flights = Flights()
        self._refreshing = Flights()
        self._waiters = Waiters()
        self._behind: set[asyncio.Task[Any]] = set()
        self.index_entry: Callable[[str, float | None], tuple[tuple[Any, ...], ...]] = lambda key, ttl: ()
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

    async def fill(self, key: str, loader: Loader, terms: Terms) -> Any:
        """The value of a key that missed, loaded once whoever else asks. Raises what the loader raises."""
        return await self._flights.join(key, lambda: self._fly(key, loader, terms))

    def refresh(self, key: str, loader: Loader, terms: Terms) -> None:
        """Load anew in the background, unless somebody is at it."""
        task = asyncio.create_task(self._refreshing.join(key, lambda: self._renew(key, loader, terms)))
        self._keep_behind(task)

    # -- flights ---------------------------------------------------------------------------------------

    async def _fly(self, key: str, loader: Loader, terms: Terms) -> Any:
        token = token_hex(8)
        while True:
            waiter = self._waiters.wait(key)  # before looking, so that no change goes unseen
            try:
                try:
                    await self._pay_debt(key)
                    kind, *rest = await self._acquire(key, token, terms)
                except FAILURES:
                    self._engine.count_error()
                    # The lease may have been granted all the same: nobody should wait for it to end.
                    self._keep_behind(asyncio.create_task(self._release(key, token)))
                    return await loader()
                if kind == _VALUE:
                    return codec.decode(rest[0])
                last = rest[0]
                if kind == _GRANTED:
                    return await self._lead(key, token, loader, terms, last)
                if last is not None:
                    await asyncio.wait({waiter}, timeout=SLOW)
                    if not waiter.done():
                        return codec.decode(last)
                else:
                    left = max(int(rest[1]), 1) / 1000
                    await asyncio.wait({waiter}, timeout=left if self._engine.tracking else min(left, _LOOK_AGAIN))
            except codec.UndecodableValue:
                await self._engine.unlink([key, keys.stale(key)])
            finally:
                self._waiters.leave(key, waiter)

    async def _pay_debt(self, key: str) -> None:
        """An invalidation of ``key`` that is still owed comes first, or the old value would be taken for a hit."""
        if self._engine.pending and self._engine.pending.covers(key):
            await self._engine.unlink([keys.lease(key), keys.stale(key)])
            await self._engine.unlink([key])

    async def _acquire(self, key: str, token: str, terms: Terms) -> list[Any]:
        if entry := self.index_entry(key, terms.ttl):
            await self._engine.send_all(*entry)
        names = (key, keys.lease(key), keys.stale(key))
        reply: list[Any] = await self._engine.run(ACQUIRE, names, token, int(LEASE * 1000), int(terms.stale_for > 0))
        return reply

    async def _lead(self, key: str, token: str, loader: Loader, terms: Terms, last: bytes | None) -> Any:
        """Load under the lease. With a last good value, a loader that is slow or fails is answered with it."""
        load = asyncio.create_task(self._load(key, token, loader, terms), name="cache-load")
        try:
            if last is None:
                return await load
            await asyncio.wait({load}, timeout=SLOW)
        except asyncio.CancelledError:
            load.cancel()
            self._keep_behind(load)
            raise
        if not load.done():
            self._keep_behind(load)  # it goes on, and fills for the next one
            return codec.decode(last)
        if (problem := load.exception()) is not None:
            logger.warning("a loader failed (%s): the last good value is served", type(problem).__name__)
            return codec.decode(last)
        return load.result()

    async def _load(self, key: str, token: str, loader: Loader, terms: Terms) -> Any:
        renewing = asyncio.create_task(self._hold(key, token), name="cache-lease")
        try:
            value = await loader()
            await self._store(key, token, value, terms)
        except BaseException:
            self._keep_behind(asyncio.create_task(self._release(key, token)))
            raise
        finally:
            renewing.cancel()
        return value

    async def _store(self, key: str, token: str, value: Any, terms: Terms) -> None:
        lives = terms.milliseconds(value)
        if lives is None:
            await self._release(key, token)
            return
        raw = codec.encode(value)
        try:
            if len(raw) > self._engine.max_value_bytes:
                logger.warning("a loaded value of %d bytes is larger than CACHE_MAX_VALUE_BYTES: not kept", len(raw))
                await self._release(key, token)
                return
            self._engine.near.drop(key)
            filled = await self._engine.run(FILL, (key, keys.lease(key), keys.stale(key)), token, raw, *lives)
            if filled:
                self._engine.pending.settle(key)
        except FAILURES:
            self._engine.count_error()

    async def _renew(self, key: str, loader: Loader, terms: Terms) -> None:
        token = token_hex(8)
        try:
            granted = await self._engine.send("SET", keys.lease(key), token, "NX", "PX", int(LEASE * 1000))
        except FAILURES:
            self._engine.count_error()
            return
        if granted:
            try:
                await self._load(key, token, loader, terms)
            except Exception as problem:
                logger.warning("a loader failed (%s): the value that is there stays", type(problem).__name__)

    async def _hold(self, key: str, token: str) -> None:
        while True:
            await asyncio.sleep(_RENEW)
            try:
                if not await self._engine.run(RENEW, (keys.lease(key),), token, int(LEASE * 1000)):
                    return  # invalidated or evicted: what is loaded will not be kept
            except FAILURES:
                self._engine.count_error()

    async def _release(self, key: str, token: str) -> None:
        try:
            await self._engine.run(RELEASE, (keys.lease(key),), token)
        except FAILURES:
            self._engine.count_error()

    def _keep_behind(self, task: asyncio.Task[Any]) -> None:
        self._behind.add(task)
        task.add_done_callback(self._done_behind)

    def _done_behind(self, task: asyncio.Task[Any]) -> None:
        self._behind.discard(task)
        if not task.cancelled():
            task.exception()
