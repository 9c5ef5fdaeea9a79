"""Runs loaders: each for a bounded time, and none that waits for itself.

A loader runs in a context that names the loads it is part of, and every task that it creates inherits that. So a loader
that asks for its own key, directly or through other keys, is found at once. Two loads that different callers began, and
that wait for each other, are found by what each of them awaits, through whichever caches of this process. A cycle
through other processes, or through a thread that inherits no context, ends with the time-out.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, Final

from .. import keys
from ..background import BackgroundTasks
from ..exceptions import LoadCycle, LoadTimeout

logger = logging.getLogger("cache")
_CLOSE_TIMEOUT: Final = 1.0  # seconds that closing waits for cancelled loaders

Loader = Callable[[], Awaitable[Any]]
_Name = tuple[str, str]  # address of a Redis, and key


@dataclass(slots=True, eq=False)
class _Load:
    """A loader, and the keys that it awaits."""

    name: _Name
    awaits: list[_Name] = field(default_factory=list)


_running: Final[set[_Load]] = set()  # of every cache in this process, each of which may have a thread of its own
_inside: Final[ContextVar[tuple[_Load, ...]]] = ContextVar("cache_loads", default=())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_running.clear)


class Loaders:
    """The loaders of one cache. ``address`` names its Redis: another cache of the same one has the same keys."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._tasks = BackgroundTasks()

    async def run(self, key: str, loader: Loader, timeout: float) -> Any:
        """Return what ``loader`` returns.

        Not ``asyncio.timeout``, which a loader that swallows its cancellation would outlast.

        Raises:
            LoadTimeout: it did not end within ``timeout`` seconds, and is cancelled. That is logged.
            Exception: what it raises.
        """
        load, context = _Load((self._address, key)), copy_context()
        context.run(_inside.set, (*_around(), load))
        _running.add(load)
        task = self._tasks.spawn(_call(loader), "cache-loader", context)
        try:
            await asyncio.wait({task}, timeout=timeout)
            if task.done():
                return task.result()
        finally:
            _running.discard(load)
            task.cancel()
        logger.warning("a loader did not end within %g s and is cancelled (%s)", timeout, keys.shape(key))
        raise LoadTimeout(f"the loader did not end within {timeout:g} s")

    def check(self, key: str) -> None:
        """Refuse a load that would wait for itself.

        Raises:
            LoadCycle: this context is part of a load of ``key``, or of what a load of ``key`` awaits.
        """
        if not _inside.get():
            return
        around = {load.name for load in _around()}
        seen: set[_Name] = set()
        names = [(self._address, key)]
        while names:
            name = names.pop()
            if name in around:
                raise LoadCycle(f"a loader asked for the key that it loads ({keys.shape(key)})")
            if name not in seen:
                seen.add(name)
                names += [awaited for load in list(_running) if load.name == name for awaited in load.awaits]

    @contextmanager
    def awaiting(self, key: str) -> Iterator[None]:
        """Record during the block that the innermost load of this context awaits ``key``.

        Raises:
            LoadCycle: see :meth:`check`.
        """
        self.check(key)
        around, name = _around(), (self._address, key)
        awaits = around[-1].awaits if around else []
        awaits.append(name)
        try:
            yield
        finally:
            awaits.remove(name)

    async def close(self) -> None:
        """Cancel what is under way."""
        await self._tasks.cancel(_CLOSE_TIMEOUT)


async def _call(loader: Loader) -> Any:
    return await loader()


def _around() -> tuple[_Load, ...]:
    """The loads under way that this context is part of. Tasks that one leaves behind may ask for its key again."""
    return tuple(load for load in _inside.get() if load in _running)
