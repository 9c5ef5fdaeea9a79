"""Singleflight: in one process, one call per key at a time, shared by every caller (as Go's x/sync/singleflight).

A flight is a task of its own that callers await behind a shield, so a caller that is cancelled cancels no other. When
the last caller has gone, the flight is cancelled. An invalidation detaches a flight: callers from before it get the
flight's outcome, later callers begin a new flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from ..background import BackgroundTasks


class Singleflight:
    """The calls under way in this process, by key."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight] = {}  # that a caller may join
        self._tasks = BackgroundTasks()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._flights

    def __len__(self) -> int:
        return len(self._flights)

    async def join(
        self, key: Hashable, start: Callable[[], Coroutine[Any, Any, Any]], now: int = 0, since: int = 0
    ) -> Any:
        """Await the flight for ``key``, and return or raise what it does.

        Args:
            key: the key.
            start: begins a flight if there is none.
            now: a number that grows; a new flight remembers it.
            since: a flight with a smaller number is not joined: a new one takes its place.
        """
        flight = self._flights.get(key)
        if flight is None or flight.began < since or flight.task.done():
            flight = self._flights[key] = _Flight(self._tasks.spawn(start(), "cache-fill"), now)
        flight.callers += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.callers -= 1
            if not flight.callers:
                if self._flights.get(key) is flight:
                    del self._flights[key]
                flight.task.cancel()

    def detach(self, names: Iterable[Hashable]) -> None:
        """Let later callers of these keys begin a new flight."""
        for name in names:
            self._flights.pop(name, None)

    def detach_all(self) -> None:
        """Let later callers of any key begin a new flight."""
        self._flights.clear()

    async def close(self) -> None:
        """Cancel every flight and wait until all have ended."""
        self.detach_all()
        await self._tasks.cancel()


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Any]
    began: int
    callers: int = 0
