"""Invalidations that must not get lost: told to the cache at once, and struck off the store's outbox when they are.

The store counts every write in its own transaction (see ``store.outbox``). After a write the versions so far are read,
then the cache is told, then, in the background, those versions are settled. A process that dies anywhere on that way
leaves them owed, and the next worker that starts delivers them. A caller who is cut off stops nothing: once a write has
begun, the cache is told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from cache import BackgroundTasks, RedisCache, get_redis_cache, keys

from ..store import DataKind, OutboxRow, Store, StoreError
from .change_listener import invalidate
from .consistency import ConsistencyWatch
from .read_through import STALE_FOR

logger = logging.getLogger("companion")
POLL_INTERVAL: Final = 30.0
"""Seconds between two looks for what somebody else owes."""
GRACE: Final = 5.0
"""Seconds a write is left to its own writer."""
_READ: Final = 0.25  # seconds the cache may have to wait for the versions; without them nothing is settled, that is all
_DRAIN: Final = 2.0
LIFE: Final = keys.PROFILE_TTL + STALE_FOR
"""Seconds that a value may live in Redis at most, the last good copy of it included."""
_CLOCKS: Final = 300.0  # seconds by which the clocks of Redis, store and worker may differ
_PAGE: Final = 100  # rows of the outbox that are read at once
_MAX_ROWS: Final = 1000  # more invalidations than that, and clearing the cache is quicker
_MAX_SCANS: Final = 20  # of those that may each take a walk over all keys


class OutboxRelay:
    """Tells the cache what has changed in the store.

    Args:
        store: gives the store when it is needed.
        watch: told of what was written.

    Attributes:
        cache_is_private: whether :meth:`use_private_cache` was called.
    """

    def __init__(self, store: Callable[[], Store], watch: ConsistencyWatch) -> None:
        self._store = store
        self._watch = watch
        self.cache_is_private = False
        self._under_way = BackgroundTasks()
        self._looking: asyncio.Task[None] | None = None
        self._heard: set[OutboxRow] = set()
        self._heard_at: float | None = None

    def use_private_cache(self) -> None:
        """Relay to a cache that this machine alone uses, while other machines write to the store too.

        Their cache still needs the invalidations, so this relay acknowledges no outbox row. They do not invalidate this
        cache, so the relay polls the outbox for recent writes of others and invalidates them here.
        """
        self.cache_is_private = True

    async def write(self, work: Coroutine[Any, Any, DataKind], user_id: str) -> None:
        """Do ``work``, which writes to the store and says what of this user has changed, and tell the cache.

        Who is cancelled while waiting (a turn that is interrupted, say) stops neither: the store may have committed.

        Raises:
            StoreError: it is not written.
        """
        await asyncio.shield(self.start_write(work, user_id))

    def start_write(self, work: Coroutine[Any, Any, DataKind], user_id: str) -> asyncio.Task[None]:
        """As :meth:`write`, in the background."""
        return self._under_way.spawn(self._write(work, user_id), name="outbox-delivery")

    async def invalidate_written(self, user_id: str, *whats: DataKind) -> None:
        """These have just been written for this user: the cache forgets what hangs on them."""
        # Read first, so that nothing is settled which the cache has not heard of.
        reading = asyncio.ensure_future(self._store().pending_changes_of(user_id, whats))
        owed: Sequence[OutboxRow] = ()
        try:
            await asyncio.wait({reading}, timeout=_READ)
            if reading.done():
                owed = reading.result()
        except StoreError as problem:
            logger.warning("an invalidation stays in the outbox: %s", problem)
        finally:
            self._under_way.abandon(reading)
        cache = await get_redis_cache()
        for what in whats:
            await invalidate(cache, user_id, what)
            self._watch.schedule(user_id, what)
        if owed and cache.connected and not (cache.owes(user_id) or self.cache_is_private):
            self._under_way.spawn(self._settle(owed), name="outbox-delivery")

    def start(self) -> None:
        """Deliver in the background what is owed by processes that died, now and every half minute.

        A private cache is told what others wrote.
        """
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="outbox-poll")

    async def deliver_pending(self, older_than: float = GRACE) -> int:
        """Deliver what has been owed for ``older_than`` seconds, by anybody. Returns how many rows were settled.

        Raises:
            StoreError: the outbox cannot be read.
        """
        cache: RedisCache = await get_redis_cache()
        settled: set[OutboxRow] = set()
        while not self.cache_is_private:
            owed = set(await self._store().pending_changes(_PAGE, older_than)) - settled
            for one in owed:
                await invalidate(cache, one.user_id, one.kind)
            untold = cache.owes(*{one.user_id for one in owed})
            told = [one for one in owed if one.user_id not in untold]
            if not told or not cache.connected:
                break
            await self._store().acknowledge(told)
            settled.update(told)
        return len(settled)

    async def redeliver_recent(self) -> bool:
        """Invalidate once more what was written within the life of a cached value.

        For a Redis that may have forgotten what it was told. Returns whether that is all that may be old in it: not
        where it is too much to tell.

        Raises:
            StoreError: the store cannot say.
        """
        written = await self._store().recent_changes(within=LIFE + _CLOCKS, limit=_MAX_ROWS + 1)
        if len(written) > _MAX_ROWS or sum(one.kind == "memory" for one in written) > _MAX_SCANS:
            return False
        cache = await get_redis_cache()
        for one in written:
            await invalidate(cache, one.user_id, one.kind)
        logger.info("Redis was restarted or restored: %d invalidations of the last day told again", len(written))
        return True

    async def close(self) -> None:
        """Finish what was begun, within two seconds. What is left stays owed."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
            self._looking = None
        await self._under_way.ended(_DRAIN)
        await self._under_way.cancel(timeout=1.0)
        await self._watch.close()

    async def _write(self, work: Coroutine[Any, Any, DataKind], user_id: str) -> None:
        await self.invalidate_written(user_id, await work)

    async def _settle(self, owed: Sequence[OutboxRow]) -> None:
        try:
            await self._store().acknowledge(owed)
        except StoreError as problem:
            logger.warning("an invalidation stays in the outbox: %s", problem)

    async def _poll_recent(self) -> None:
        """Others tell their cache of what they write, and not this one. Raises StoreError."""
        cache = await get_redis_cache()
        now = time.time()  # a machine that slept counts too
        since = LIFE if self._heard_at is None else now - self._heard_at
        written = set(await self._store().recent_changes(within=since + _CLOCKS, limit=_MAX_ROWS + 1))
        if len(written) > _MAX_ROWS:
            await cache.invalidate(f"{keys.USERS}*")
        else:
            for one in written - self._heard:
                await invalidate(cache, one.user_id, one.kind)
        self._heard, self._heard_at = written, now

    async def _look(self) -> None:
        while True:
            try:
                if self.cache_is_private:
                    await self._poll_recent()
                elif count := await self.deliver_pending():
                    logger.info("%d invalidations that were still owed have been delivered", count)
            except StoreError as problem:
                logger.warning("the outbox could not be read: %s", problem)
            except Exception as problem:  # a mistake of ours: the next look is taken all the same
                logger.error("a look at the outbox failed (%s)", type(problem).__name__)
            await asyncio.sleep(POLL_INTERVAL)
