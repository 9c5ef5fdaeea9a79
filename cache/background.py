"""Tasks that nobody waits for: kept until they end, and looked at, so that asyncio complains of none."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Some = TypeVar("Some", bound=asyncio.Future[Any])


def retrieve_exception(task: asyncio.Future[Any]) -> None:
    """Look at the outcome of a task that perhaps nobody waits for any more, so that nothing warns of it."""
    if not task.cancelled():
        task.exception()


class BackgroundTasks:
    """Such tasks, of one owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def keep(self, task: Some) -> Some:
        """Keep a task until it ends, and return it."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(retrieve_exception)
        return task

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Begin ``work`` as a task, keep it, and return it."""
        return self.keep(asyncio.create_task(work, name=name))

    def abandon(self, task: asyncio.Future[Any]) -> None:
        """Cancel a task and keep it: one that ignores being cancelled for a while is nobody's concern."""
        task.cancel()
        self.keep(task)

    async def ended(self, timeout: float) -> None:
        """Wait until none is left, at most ``timeout`` seconds. One that ends may leave another behind."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout
        while self._tasks and (left := give_up - loop.time()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left)

    async def cancel(self, timeout: float | None = None) -> None:
        """Cancel all, and wait until they have ended, at most ``timeout`` seconds."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout)
