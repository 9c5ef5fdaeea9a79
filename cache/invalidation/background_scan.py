"""Deletes the unindexed keys of cleared users, in the background: one scan for all users that wait for it.

They are masked meanwhile (``coherence.unindexed_keys``). An interrupted scan is repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Final

from .. import keys
from ..coherence.glob import matches
from ..coherence.unindexed_keys import WaitingScans
from ..core.engine import Engine
from ..exceptions import TransportError
from .scan import delete, guarded_by, pages

ON_CLOSE: Final = 5.0
"""Seconds that closing waits for a scan: a conversation may end just after it began one."""
_PAGE: Final = 250  # keys that the server examines at a time, to delay other clients little


class BackgroundScan:
    """The scan of one cache.

    Args:
        engine: the shared parts of the cache.
        drop: called with keys that were deleted, to drop them from this process.

    Attributes:
        task: the scan under way, or the last one; None before the first.
    """

    def __init__(self, engine: Engine, drop: Callable[[Collection[str]], None]) -> None:
        self._transport = engine.transport
        self._unindexed = engine.pending.unindexed
        self._drop = drop
        self.task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether a scan is under way."""
        return self.task is not None and not self.task.done()

    @property
    def interrupted(self) -> bool:
        """Whether there is something to scan for, and no scan is under way."""
        return bool(self._unindexed) and not self.running

    def start(self) -> None:
        """Begin, or repeat, a scan if one is needed."""
        if self.interrupted and self._transport.connected and not self._transport.closed:
            self.task = asyncio.create_task(self._run(), name="cache-scan-unindexed")

    async def close(self) -> None:
        """Wait at most ``ON_CLOSE`` for a scan under way, then cancel it."""
        if self.task is not None:
            await asyncio.wait({self.task}, timeout=ON_CLOSE)
            self.task.cancel()
            await asyncio.wait({self.task})

    async def _run(self) -> None:
        """Delete the unindexed keys of all waiting users. What this layer stores meanwhile is indexed, and stays."""
        while waiting := self._unindexed.waiting():
            try:
                # *user:* matches their leases and last good values too, which may outlive both value and index.
                async for page in pages(self._transport, "*user:*", size=_PAGE):
                    await self._delete_unindexed({guarded_by(key) or key for key in page}, waiting)
            except TransportError:
                return  # they stay masked until the scan is repeated
            self._unindexed.deleted(waiting)

    async def _delete_unindexed(self, page: Iterable[str], waiting: WaitingScans) -> None:
        found = []
        for key in page:
            owned = keys.owner(key)
            if owned is None or owned[0] not in waiting or owned[1] in keys.FAMILIES:
                continue
            if not any(matches(pattern, key) for pattern in waiting[owned[0]]):
                continue
            name = owned[1].encode(errors="surrogateescape")
            if not await self._transport.send("SISMEMBER", keys.index(owned[0]), name):
                found.append(key)
        if found:
            guards = [guard for key in found for guard in (keys.lease(key), keys.stale(key))]
            await delete(self._transport, [*guards, *found])
            self._drop(found)
