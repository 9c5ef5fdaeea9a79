"""Fire-and-forget tasks: strong references, exceptions retrieved. And the clock of the loop they run in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

FutureT = TypeVar("FutureT", bound=asyncio.Future[Any])
T = TypeVar("T")


def loop_time() -> float:
    """Seconds by the clock of the running loop, which all deadlines are measured with."""
    return asyncio.get_running_loop().time()


def retrieve_exception(task: asyncio.Future[Any]) -> None:
    """Retrieve the outcome of a task that may have no waiter, so that asyncio logs no "never retrieved" warning."""
    if not task.cancelled():
        task.exception()


async def set_within(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for ``event``, but no longer than that (None: without limit). Returns whether it is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


class BackgroundTasks:
    """The fire-and-forget tasks of one owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def keep(self, task: FutureT) -> FutureT:
        """Hold a reference to ``task`` until it ends, and return it."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(retrieve_exception)
        return task

    def spawn(self, work: Coroutine[Any, Any, T], name: str, context: Context | None = None) -> asyncio.Task[T]:
        """Run ``work`` as a task, keep it, and return it."""
        return self.keep(asyncio.create_task(work, name=name, context=context))

    def abandon(self, task: asyncio.Future[Any]) -> None:
        """Cancel ``task`` without waiting, and keep it until it has ended."""
        task.cancel()
        self.keep(task)

    async def ended(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds until no task is left, including tasks that these tasks start."""
        deadline = loop_time() + timeout
        while self._tasks and (left := deadline - loop_time()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left)

    async def cancel(self, timeout: float | None = None) -> None:
        """Cancel every task and wait at most ``timeout`` seconds (None: without limit) until they have ended."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout)
