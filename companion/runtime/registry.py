"""One runtime per event loop, because a connection belongs to the loop that opened it.

Each conversation acquires the runtime and releases it; the last release closes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from cache import recall_with

from ..settings import Settings
from .runtime import Runtime

_runtimes: WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = WeakKeyDictionary()
_ended: WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = WeakKeyDictionary()  # not from the environment


def get_runtime() -> Runtime:
    """The runtime of the running loop; a new one, from the environment, if there is none yet.

    Where the program has set one of its own, what comes after its end gets that one, which is closed: it reads nothing,
    and what it writes is spooled. Store and model of the environment may be others.
    """
    loop = asyncio.get_running_loop()
    runtime = _runtimes.get(loop) or _ended.get(loop)
    return set_runtime(Runtime()) if runtime is None else runtime


def set_runtime(runtime: Runtime) -> Runtime:
    """Make ``runtime`` the running loop's. To be called before the loop's first conversation.

    Raises:
        RuntimeError: conversations have acquired another one: what they say would be in the stores of both.
    """
    loop = asyncio.get_running_loop()
    running = _runtimes.get(loop)
    if running is not None and running is not runtime and running.conversations > 0:
        raise RuntimeError("conversations of this event loop use another runtime: set one before the first attach")
    _runtimes[loop] = runtime
    _ended.pop(loop, None)
    recall_with(runtime.outbox_relay.recent.redeliver)
    return runtime


@asynccontextmanager
async def runtime_of_command() -> AsyncIterator[Runtime]:
    """The runtime of a command of the command line, in the ``with`` block.

    Raises:
        SettingsError: a setting is missing or unusable.
    """
    runtime = set_runtime(Runtime(Settings.load_with_home()))
    try:
        yield runtime
    finally:
        await close_runtime()


def acquire_runtime() -> Runtime:
    """The runtime of the running loop, for one conversation; to be released with :func:`release_runtime`.

    Raises:
        RuntimeError: the program has set one of its own (settings, store or model), and that has ended with its last
            conversation.
    """
    runtime = get_runtime()
    if _ended.get(asyncio.get_running_loop()) is runtime:
        raise RuntimeError(
            "the runtime that was set has ended with its last conversation: set another before this attach, or hold "
            "one with acquire_runtime for as long as the program runs"
        )
    runtime.conversations += 1
    return runtime


async def release_runtime(runtime: Runtime | None = None) -> None:
    """Release what :func:`acquire_runtime` gave. The last release closes it.

    Args:
        runtime: what :func:`acquire_runtime` returned: it may have been closed since, and another be the loop's, which
            other conversations use. None for the running loop's.
    """
    running = _runtimes.get(asyncio.get_running_loop())
    runtime = runtime or running
    if runtime is not None:
        runtime.conversations -= 1
        if runtime is running and runtime.conversations <= 0:
            await close_runtime()


async def close_runtime() -> None:
    """Close the running loop's runtime and cache; see :func:`get_runtime` for what comes later."""
    loop = asyncio.get_running_loop()
    runtime = _runtimes.pop(loop, None)
    if runtime is not None:
        _drop_closed()
        if not runtime.from_environment:
            _ended[loop] = runtime
        await runtime.close(_used)
        if loop not in _runtimes:
            recall_with(None)  # the relay can redeliver nothing any more, and would be held with all of the runtime


def _drop_closed() -> None:
    """Let go of what has ended in loops that are closed: it may hold its loop, and then neither would ever go."""
    for each in _ended.keyrefs():  # a list: loops of other threads come and go meanwhile
        if (loop := each()) is not None and loop.is_closed():
            _ended.pop(loop, None)


def _used() -> Runtime | None:
    """The running loop's runtime, if conversations use it."""
    runtime = _runtimes.get(asyncio.get_running_loop())
    return runtime if runtime is not None and runtime.conversations > 0 else None
