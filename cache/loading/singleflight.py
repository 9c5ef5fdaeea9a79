"""Singleflight: in one process, one load of a key at a time, for everybody who asks.

A flight is a task of its own. Whoever asks waits for it behind a shield, so that one caller who hangs up cancels
nobody else; when the last one has gone, the flight is cancelled. An invalidation detaches a flight: those who asked
before it get what they asked for, those who ask later start a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from ..background import BackgroundTasks, retrieve_exception


class Singleflight:
    """The loads under way in this process, by key."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight] = {}
        self._detached = BackgroundTasks()

    def __contains__(self, key: str) -> bool:
        return key in self._flights

    def __len__(self) -> int:
        return len(self._flights)

    async def join(self, key: str, start: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The outcome of the flight for ``key``; ``start`` makes one if there is none.

        Raises:
            what the flight raises.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(
                asyncio.create_task(start(), name=f"cache-fill {key.partition(':')[0]}")
            )
            flight.task.add_done_callback(lambda task: self._landed(key, task))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                if self._flights.get(key) is flight:
                    del self._flights[key]
                self._detached.abandon(flight.task)

    def detach(self, names: Iterable[str]) -> None:
        """Whoever asks for these keys from now on starts a new flight."""
        if self._flights:
            for name in names:
                flight = self._flights.pop(name, None)
                if flight is not None:
                    self._detached.keep(flight.task)

    def detach_all(self) -> None:
        """Whoever asks for any key from now on starts a new flight."""
        self.detach(list(self._flights))

    async def close(self) -> None:
        """Cancel everything and wait for it."""
        self.detach_all()
        await self._detached.cancel()

    def _landed(self, key: str, task: asyncio.Task[Any]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
        retrieve_exception(task)  # even if the last caller has just hung up


class _Flight:
    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.waiting = 0
