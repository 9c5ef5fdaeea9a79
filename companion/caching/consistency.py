"""The consistency watch: a share of the writes is looked at again, in the cache and in the store, a while later.

What the cache still serves then, and the store no longer says, is stale: it is counted (``stale_reads`` in the
statistics), logged with key and age, and removed. There should be none; if there is one, an operator hears of it before
a person does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

from cache import BackgroundTasks, get_redis_cache, keys

from ..store import DataKind, Store, StoreError
from .read_through import MAX_FACTS, search_key

FIRST_CHECK: Final = 5.0
"""Seconds after a write until the first look: every way of invalidating has had its time."""
SECOND_CHECK: Final = 1.0
"""Seconds until the second look: what is being changed at the first one is no longer at the second."""
_MOST: Final = 100  # looks waiting at the same time
_MISSING: Final = object()


class ConsistencyWatch:
    """Watches the writes it is told of.

    Args:
        store: gives the store when it is needed.
        share: of the writes, from 0 (none) to 1 (all), chosen at random.
    """

    def __init__(self, store: Callable[[], Store], share: float) -> None:
        self._store = store
        self._share = share
        self._looking = BackgroundTasks()
        self._closed = False

    def schedule(self, user_id: str, what: DataKind) -> None:
        """This has been written, and the cache told. Returns at once."""
        if not self._closed and random.random() < self._share and len(self._looking) < _MOST:
            self._looking.spawn(self._watch(user_id, what), name="consistency-watch")

    async def close(self) -> None:
        """Look no more."""
        self._closed = True
        await self._looking.cancel()

    async def _watch(self, user_id: str, what: DataKind) -> None:
        now = asyncio.get_running_loop().time
        written = now()
        await asyncio.sleep(FIRST_CHECK)
        try:
            first = await self._difference(user_id, what)
            if first is None:
                return
            await asyncio.sleep(SECOND_CHECK)
            second = await self._difference(user_id, what)
        except (StoreError, keys.InvalidKeyPart):
            return  # nobody knows what is true
        if second == first:  # else somebody was at it, and it has gone or has a watch of its own
            await (await get_redis_cache()).report_stale(_key(user_id, what), now() - written)

    async def _difference(self, user_id: str, what: DataKind) -> tuple[Any, Any] | None:
        """What the cache serves and what is true, where they differ."""
        served = await (await get_redis_cache()).get(_key(user_id, what), _MISSING)
        if served is _MISSING:
            return None
        if what == "turn":  # of a greeting only this follows from the turns without asking a model
            served = served.get("last_seen") if isinstance(served, dict) else served
        true = await _truth(self._store(), user_id, what)
        return None if served == true else (served, true)


def _key(user_id: str, what: DataKind) -> keys.Key:
    """The key that must be right after ``what`` was written; of the searches, that for the newest facts."""
    match what:
        case "profile":
            return keys.profile(user_id)
        case "turn":
            return keys.greeting_instructions(user_id)
        case "memory":
            return search_key(user_id, "")
        case "summary":
            return keys.summary(user_id)
        case "state":
            return keys.state(user_id)


async def _truth(store: Store, user_id: str, what: DataKind) -> Any:
    """What the cache may serve under that key. Raises StoreError."""
    match what:
        case "profile":
            return await store.get_profile(user_id) or ""
        case "turn":
            turns = await store.recent_turns(user_id, 1)
            return turns[-1].at.isoformat() if turns else ""
        case "memory":
            return [memory.text for memory in await store.search_memories(user_id, "", MAX_FACTS)]
        case "summary":
            summary = await store.latest_summary(user_id)
            return summary.text if summary else ""
        case "state":
            return await store.get_state(user_id) or {}
