"""The relay of the transactional outbox: delivers to the cache the invalidation of every write to the store.

The store counts each write in the write's own transaction (``store.outbox``). After a write the relay reads the
pending rows, invalidates, and acknowledges those rows in the background. A process that dies anywhere in between leaves
the rows pending, and the next worker's relay delivers them: at least once, never lost. A caller who is cancelled stops
nothing: once a write has begun, its invalidation follows.

Only the workers of the cache that the store has registered acknowledge (``cache_identity``). The relay of any other
cache invalidates there what anyone has written lately.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any, Final

from cache import BackgroundTasks, RedisCache, get_redis_cache

from ..store import DataKind, OutboxRow, Store, StoreError
from .cache_identity import CacheIdentity
from .consistency import ConsistencyWatch
from .erasure_relay import ErasureRelay
from .invalidation import invalidate, invalidate_rows
from .recent_changes import RecentChanges

logger = logging.getLogger("companion")
POLL_INTERVAL: Final = 30.0
"""Seconds between two polls of the outbox."""
GRACE: Final = 5.0
"""Seconds for which a pending row is left to the relay of the process that wrote it."""
_READ_TIMEOUT: Final = 0.25  # seconds an invalidation waits for the pending rows; without them it acknowledges none
DRAIN_TIMEOUT: Final = 2.0  # seconds that closing waits for deliveries under way
CANCEL_TIMEOUT: Final = 1.0  # seconds that it waits for those it cancels: the client of a store may ignore that
_PAGE: Final = 100  # rows of the outbox read at a time


class OutboxRelay:
    """Delivers pending invalidations to the cache.

    Args:
        store: returns the store; called when it is needed.
        watch: compares cache and store after a sample of the writes.

    Attributes:
        erasures: delivers erasures.
        identity: which cache this is.
        recent: invalidates again what was written lately.
    """

    def __init__(self, store: Callable[[], Store], watch: ConsistencyWatch) -> None:
        self._store = store
        self.watch = watch
        self.identity = CacheIdentity()
        self.erasures = ErasureRelay(store, self.identity)
        self.recent = RecentChanges(store, self.erasures)
        self._background = BackgroundTasks()
        self._polling = BackgroundTasks()

    def use_private_cache(self) -> None:
        """From now on, treat the cache as one that only this machine uses, beside a store that others write to.

        Their cache still needs the invalidations, so this relay acknowledges no row; and their relays do not reach
        this cache, so this relay invalidates here what anyone has written lately.
        """
        self.identity.private = True

    async def write(self, work: Coroutine[Any, Any, DataKind], user_id: str) -> None:
        """Write to the store, then invalidate. Neither is stopped by the caller's cancellation.

        Args:
            work: writes, and returns the kind of data it has written. It may have committed when it raises.
            user_id: whose data it writes.

        Raises:
            StoreError: the store has not confirmed the write.
        """
        await asyncio.shield(self.start_write(work, user_id))

    def start_write(self, work: Coroutine[Any, Any, DataKind], user_id: str) -> asyncio.Task[None]:
        """As ``write``, in a task of its own, which is returned."""
        return self._background.spawn(self._write(work, user_id), name="outbox-delivery")

    async def invalidate_written(self, user_id: str, *kinds: DataKind) -> None:
        """Invalidate what has just been written, and acknowledge it in the outbox.

        Args:
            user_id: whose data was written.
            kinds: the kinds of data that were written.
        """
        # Read first: a row that is read later may count a write that this invalidation does not cover.
        reading = asyncio.ensure_future(self._store().pending_changes_of(user_id, kinds))
        rows: Sequence[OutboxRow] = ()
        try:
            await asyncio.wait({reading}, timeout=_READ_TIMEOUT)
            if reading.done():
                rows = reading.result()
        except StoreError as problem:
            logger.warning("an invalidation stays in the outbox: %s", problem)
        finally:
            self._background.abandon(reading)
        cache = await get_redis_cache()
        for kind in kinds:
            await invalidate(cache, user_id, kind)
            self.watch.schedule(user_id, kind)
        if rows and cache.connected and not (cache.invalidations.undelivered_for(user_id) or self.identity.private):
            self._background.spawn(self._acknowledge(cache, rows), name="outbox-delivery")

    def start(self) -> None:
        """Poll the outbox in the background, now and every ``POLL_INTERVAL`` seconds.

        Each poll delivers what the relays of other processes have left pending for ``GRACE`` seconds; see
        ``deliver_pending``.
        """
        if not len(self._polling):
            self._polling.spawn(self._poll(), name="outbox-poll", context=Context())  # it outlasts its caller

    async def deliver_pending(self, older_than: float = GRACE) -> int:
        """Deliver every row that has been pending for ``older_than`` seconds, of any user.

        To a cache that is private, or not the registered one, deliver instead what anyone has written since the last
        time, and acknowledge none.

        Args:
            older_than: seconds.

        Returns:
            How many rows were acknowledged: none where Redis cannot be reached.

        Raises:
            StoreError: the outbox cannot be read or written.
        """
        cache: RedisCache = await get_redis_cache()
        if self.identity.private:
            await self.recent.poll()
            return 0
        cache_id = await self.identity.of(cache)
        if cache_id is not None and not await self._is_registered(cache_id):
            return 0
        acknowledged: set[OutboxRow] = set()
        while True:
            rows = set(await self._store().pending_changes(_PAGE, older_than)) - acknowledged
            await invalidate_rows(cache, rows)
            undelivered = cache.invalidations.undelivered_for(*{row.user_id for row in rows})
            delivered = [row for row in rows if row.user_id not in undelivered]
            if not delivered or not cache.connected or cache_id is None:
                return len(acknowledged)
            await self._store().acknowledge(delivered, cache_id)
            acknowledged.update(delivered)

    async def close(self) -> None:
        """Stop polling, and finish what is under way within two seconds. Rows not acknowledged by then stay pending."""
        await self._polling.cancel(timeout=CANCEL_TIMEOUT)
        await self._background.ended(DRAIN_TIMEOUT)
        await self._background.cancel(timeout=CANCEL_TIMEOUT)
        await self.watch.close()

    async def _write(self, work: Coroutine[Any, Any, DataKind], user_id: str) -> None:
        await self.invalidate_written(user_id, await work)

    async def _is_registered(self, cache_id: str) -> bool:
        """Whether this cache is the registered one. Another is cleared of recent writes first, then may become it."""
        known, store = self.identity.registered, self._store()
        registered = await store.register_cache(cache_id, take_over=False)
        if not registered:
            await self.recent.poll()
            registered = await store.register_cache(cache_id, take_over=True)
        if known is not registered and not registered:
            logger.info("the store has another Redis registered: this one follows changes and acknowledges none")
        self.identity.registered = registered
        return registered

    async def _acknowledge(self, cache: RedisCache, rows: Sequence[OutboxRow]) -> None:
        try:
            if (cache_id := await self.identity.of(cache)) is not None:
                await self._store().acknowledge(rows, cache_id)
        except StoreError as problem:
            logger.warning("an invalidation stays in the outbox: %s", problem)

    async def _poll(self) -> None:
        while True:
            try:
                await self.erasures.deliver_pending()
                if count := await self.deliver_pending():
                    logger.info("%d pending invalidations of other processes delivered", count)
            except StoreError as problem:
                logger.warning("the outbox could not be read: %s", problem)
            except Exception as problem:  # a defect: the next poll is made all the same
                logger.error("a poll of the outbox failed (%s)", type(problem).__name__)
            await asyncio.sleep(POLL_INTERVAL)
