"""Delivers the patterns that need a scan, in the background: one scan for all that are queued when it begins.

What a pattern masks (``coherence.pending``) is deleted. An interrupted scan is repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import takewhile
from typing import Final

from .. import keys
from ..background import loop_time
from ..coherence.pending_pattern import PendingPattern
from ..core.engine import Engine
from ..exceptions import TransportError
from .ownership import ours
from .scan import delete_but_rejected, delete_matching

ON_CLOSE: Final = 5.0
"""Seconds that closing waits for a scan: a conversation may end just after it began one."""
RETRY_EVERY: Final = 1.0
"""Seconds from a scan that could not deliver everything to the next."""
Waiting = Mapping[PendingPattern, int]
"""Patterns with their sequence numbers."""
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
        self._pending = engine.pending
        self._serializer = engine.serializer
        self._engine = engine
        self._drop = drop
        self._not_before = 0.0
        self.task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether a scan is under way, of this cache or of another in this process."""
        return self._pending.shared.scanning

    def start(self) -> None:
        """Begin, or repeat, a scan if one is needed and none is under way."""
        usable = self._transport.connected and not self._transport.closed and loop_time() >= self._not_before
        if usable and not self.running and self._pending.to_scan():
            self.task = self._pending.shared.scan = asyncio.create_task(self._run(), name="cache-scan")

    async def close(self) -> None:
        """Wait at most ``ON_CLOSE`` for a scan under way, then cancel it."""
        if self.task is not None:
            await asyncio.wait({self.task}, timeout=ON_CLOSE)
            self.task.cancel()
            await asyncio.wait({self.task})

    async def _run(self) -> None:
        while waiting := self._pending.to_scan():
            refused = await self._scan(waiting)
            for pattern in waiting.keys() - refused:
                self._pending.acknowledge(pattern, waiting[pattern])
            if refused:
                self._not_before = loop_time() + RETRY_EVERY
                return
        self._engine.servers.on_delivered()

    async def _scan(self, waiting: Waiting) -> set[PendingPattern]:
        """Deliver these patterns. Returns those that Redis did not acknowledge."""
        refused: set[PendingPattern] = set()
        select, remove = partial(self._select, waiting), partial(self._remove, waiting, refused)
        try:
            await delete_matching(self._transport, _common(waiting), select, remove, size=_PAGE)
        except TransportError:
            return set(waiting)
        return refused

    async def _select(self, waiting: Waiting, names: list[str], found: bool) -> list[str]:
        """What these patterns mask, and, of what only ``own`` patterns mask, what this layer wrote."""
        chosen, doubtful = [], []
        for name in names:
            masking = [pattern for pattern, _ in self._pending.masking(name) if pattern in waiting]
            if any(not pattern.own for pattern in masking):
                chosen.append(name)
            elif masking:
                doubtful.append(name)
        return chosen + (await ours(self._transport, self._serializer, doubtful) if found else doubtful)

    async def _remove(self, waiting: Waiting, refused: set[PendingPattern], names: list[str], _: bool) -> None:
        rejected = await delete_but_rejected(self._transport, names)
        reached = [keys.guarded_by(name) or name for name in rejected]
        refused.update(pattern for pattern in waiting if any(map(pattern.reaches, reached)))
        self._drop(names)


def _common(patterns: Collection[PendingPattern]) -> str:
    """A Redis pattern for what any of these may reach: all that begins as they do."""
    starts = [pattern.start for pattern in patterns]
    same = takewhile(lambda pair: pair[0] == pair[1], zip(min(starts), max(starts), strict=False))
    return f"{keys.escape(''.join(character for character, _ in same))}*"
