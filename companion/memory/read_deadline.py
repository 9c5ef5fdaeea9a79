"""Bounds the reads of a tool: the person waits for its answer, whatever the store does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from cache import CacheError, retrieve_exception

from ..store import StoreError

READ_DEADLINE: Final = 1.8
"""Seconds that a tool waits for what it reads. With them, it answers within two seconds."""
_TICK: Final = 0.05
T = TypeVar("T")


async def within_deadline(read: Coroutine[Any, Any, T], operation: str, *, seconds: float = READ_DEADLINE) -> T:
    """The outcome of ``read``.

    The deadline holds even if the store's client ignores cancellation, which ``asyncio.timeout`` would wait for.

    Args:
        read: reads from the store; it is cancelled at the deadline.
        operation: names the read in the error.
        seconds: the deadline.

    Raises:
        StoreError: the deadline passed, or ``read`` failed: whatever a store may raise.
        CacheError: what the cache raises for a mistake in its use.
    """
    task = asyncio.create_task(read, name=f"read-{operation}")
    deadline = asyncio.create_task(sleep_unstalled(seconds), name="read-deadline")
    try:
        await asyncio.wait({task, deadline}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        deadline.cancel()
        if not task.done():
            task.cancel()
            task.add_done_callback(retrieve_exception)
    if not task.done() or task.cancelled():
        raise StoreError(operation, "no answer within the deadline")
    problem = task.exception()
    if problem is None or isinstance(problem, StoreError | CacheError):
        return task.result()
    raise StoreError(operation, type(problem).__name__) from problem


async def sleep_unstalled(seconds: float) -> None:
    """Sleep ``seconds`` in which the event loop runs.

    A stall of the process (many conversations that start at once) is no silence of the store: its answer may be there
    and not yet taken. A loop that is late by more than ``_TICK`` counts as stalled.
    """
    loop = asyncio.get_running_loop()
    while seconds > 0:
        before = loop.time()
        await asyncio.sleep(min(_TICK, seconds))
        seconds -= min(loop.time() - before, 2 * _TICK)


async def outcome(read: Coroutine[Any, Any, T], operation: str) -> T | StoreError:
    """As :func:`within_deadline`, with the error returned, for reads that run at the same time."""
    try:
        return await within_deadline(read, operation)
    except StoreError as problem:
        return problem
