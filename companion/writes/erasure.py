"""Erases a person everywhere: in the store, in every cache, in the queues of this process, and in the spool.

The wish, all ids of the person, is in the spool before anything is deleted, and is itself deleted last: an erasure that
is cut short, by ``kill -9`` or because the store is away, is completed by the next replay. The relays clear the caches
(``caching.erasure_relay``): the store says of which persons.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

from cache import BackgroundTasks

from ..caching import OutboxRelay
from ..store import PendingErasure, Store, StoreError
from .beginnings import Beginnings
from .spool import Spool

logger = logging.getLogger("companion")
_CLOSE_TIMEOUT: Final = 2.0  # seconds that closing waits for erasures under way


class Eraser:
    """Erases persons.

    Args:
        store: returns the store; called when it is needed.
        spool: keeps the wish, and holds what has to be removed.
        beginnings: learns the number of each erasure.
        outbox_relay: clears the caches.
        drop_pending: drops what waits in this process of a person; see ``WriteQueue.drop``.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        spool: Spool,
        beginnings: Beginnings,
        outbox_relay: OutboxRelay,
        drop_pending: Callable[[str, int | None], None],
    ) -> None:
        self._store = store
        self._spool = spool
        self._beginnings = beginnings
        self._outbox_relay = outbox_relay
        self._drop_pending = drop_pending
        self._background = BackgroundTasks()
        self._under_way: set[str] = set()
        self._resuming = asyncio.Lock()

    async def erase(self, user_id: str, earlier: Sequence[str] = (), wait: float | None = None) -> bool:
        """Erase a person; neither the caller's cancellation nor the end of the wait stops it.

        Args:
            user_id: the person.
            earlier: other ids of the person.
            wait: seconds to wait for it; None until its end.

        Returns:
            Whether all of it is done by now. If not, it goes on, the wish waits in the spool, or the caches' part with
            the store.

        Raises:
            StoreError: neither the store nor the spool has taken the wish.
        """
        # The current id last: until an earlier one is erased, a call that begins may move to it what is kept there.
        user_ids = list(dict.fromkeys([*(each for each in earlier if each != user_id), user_id]))
        task = self._background.spawn(self._erase(user_ids, uuid4().hex), name="erase")
        await asyncio.wait({task}, timeout=wait)
        return task.done() and bool(task.result())

    async def resume(self) -> None:
        """Complete the erasures whose wish is in the spool.

        Raises:
            StoreError: the store does not answer; the wishes stay.
        """
        await asyncio.shield(self._background.spawn(self._resume(), name="erase"))

    async def discard_unreadable(self) -> None:
        """Delete the unreadable lines in the spool that are of erased persons, or may be.

        Raises:
            StoreError: the store does not answer.
            OSError: a file could not be read or written.
        """
        lines = await asyncio.to_thread(self._spool.unreadable)
        if not lines or not await self._store().latest_erasure():
            return
        store = self._store()
        erased = {
            user_id: await store.is_erased(user_id, 0) and await store.moved(user_id, 0) is None
            for user_id in {*lines.values()}
            if user_id
        }
        gone = {line for line, user_id in lines.items() if user_id is None or erased[user_id]}
        await asyncio.to_thread(self._spool.discard, gone)

    async def waits_for(self, user_id: str) -> bool:
        """Whether the wish to erase a person is still in the spool."""
        return any(user_id in each for _, each, _ in await asyncio.to_thread(self._spool.wishes.all))

    async def close(self) -> None:
        """Wait for erasures under way, two seconds at most. The wishes of the others stay in the spool."""
        await self._background.ended(_CLOSE_TIMEOUT)
        await self._background.cancel(timeout=1.0)

    async def _resume(self) -> None:
        async with self._resuming:
            for path, user_ids, request in await asyncio.to_thread(self._spool.wishes.all):
                if request not in self._under_way:
                    await self._complete(user_ids, request, path)

    async def _erase(self, user_ids: Sequence[str], request: str) -> bool:
        self._under_way.add(request)
        path: Path | None = None
        try:
            path = await asyncio.to_thread(self._spool.wishes.add, user_ids, request)
            for user_id in user_ids:
                await asyncio.to_thread(self._spool.erase, user_id, None)  # also while the store is away
        except OSError as problem:
            logger.error("COMPANION_HOME cannot be written (%s)", problem.strerror or type(problem).__name__)
        try:
            for user_id in user_ids:
                self._drop_pending(user_id, None)
            return await self._complete(user_ids, request, path)
        except Exception as problem:  # whatever a store may raise, the wish waits in the spool
            reason = problem if isinstance(problem, StoreError) else type(problem).__name__
            logger.warning("an erasure waits for the store: %s", reason)
            for user_id in user_ids:
                await self._outbox_relay.erasures.clear(user_id)  # no greeting in the meantime, from a last good value
            if path is None:
                raise
            return False
        finally:
            self._under_way.discard(request)

    async def _complete(self, user_ids: Sequence[str], request: str, path: Path | None) -> bool:
        """Raises StoreError."""
        # A conversation may know the person by an id that was moved. The present one first: the other one names it.
        moved = await asyncio.gather(*(self._store().moved(user_id) for user_id in user_ids))
        present = {each.user_id for each in moved if each is not None}
        user_ids = [*present.difference(user_ids), *user_ids]
        done = []
        try:
            for user_id in user_ids:
                number = await self._store().erase_user(user_id, request)
                done.append(PendingErasure(user_id, number))
                self._beginnings.learn(number)
                self._drop_pending(user_id, number)
                await asyncio.to_thread(self._spool.erase, user_id, number)
            if path is not None:
                await asyncio.to_thread(path.unlink, missing_ok=True)
        except OSError as problem:
            logger.error("COMPANION_HOME cannot be written (%s)", problem.strerror or type(problem).__name__)
            return False
        try:
            return all([await self._outbox_relay.erasures.deliver(erasure) for erasure in done])
        except StoreError as problem:
            logger.warning("an erasure is not known to be done in the caches: %s", problem)
            return False
