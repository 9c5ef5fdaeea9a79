"""Runs loaders: each for a bounded time, and none that waits for itself.

A loader runs in a context that names the loads it is part of, and every task that it creates inherits that. So a loader
that asks for its own key, directly or through other keys, is found at once. Two loads that different callers began, and
that wait for each other, are found by what each of them awaits. A cycle through other processes ends with the time-out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, Final

from .. import keys
from ..background import BackgroundTasks
from ..exceptions import LoadCycle, LoadTimeout

logger = logging.getLogger("cache")
_CLOSE_TIMEOUT: Final = 1.0  # seconds that closing waits for cancelled loaders

Loader = Callable[[], Awaitable[Any]]
_Name = tuple[str, str]  # address of a Redis, and key


@dataclass(slots=True)
class _Load:
    """A loader under way. Tasks that it leaves behind may ask for its key again."""

    name: _Name
    running: bool = True


_inside: Final[ContextVar[tuple[_Load, ...]]] = ContextVar("cache_loads", default=())


class Loaders:
    """The loaders of one cache.

    Args:
        address: names the Redis; another cache of the same one has the same keys.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._awaited: dict[_Name, list[_Name]] = {}  # by load: what it awaits
        self._tasks = BackgroundTasks()

    async def run(self, key: str, loader: Loader, timeout: float) -> Any:
        """Return what ``loader`` returns.

        Not ``asyncio.timeout``, which a loader that swallows its cancellation would outlast.

        Raises:
            LoadTimeout: it did not end within ``timeout`` seconds, and is cancelled. That is logged.
            Exception: what it raises.
        """
        load, context = _Load((self._address, key)), copy_context()
        context.run(_inside.set, (*(outer for outer in _inside.get() if outer.running), load))
        task = self._tasks.spawn(_call(loader), "cache-loader", context)
        try:
            await asyncio.wait({task}, timeout=timeout)
            if task.done():
                return task.result()
        finally:
            load.running = False
            task.cancel()
        logger.warning("a loader did not end within %g s and is cancelled (%s)", timeout, keys.shape(key))
        raise LoadTimeout(f"the loader did not end within {timeout:g} s")

    def check(self, key: str) -> None:
        """Check a call of this context.

        Raises:
            LoadCycle: it is part of a load of ``key``, or of what a load of ``key`` awaits.
        """
        if not (inside := _inside.get()):
            return
        around = {load.name for load in inside if load.running}
        seen: set[_Name] = set()
        names = [(self._address, key)]
        while names:
            name = names.pop()
            if name in around:
                raise LoadCycle(f"a loader asked for the key that it loads ({keys.shape(key)})")
            if name not in seen:
                seen.add(name)
                names += self._awaited.get(name, ())

    @contextmanager
    def awaiting(self, key: str) -> Iterator[None]:
        """Record during the block that the innermost load of this context awaits ``key``.

        Raises:
            LoadCycle: as :meth:`check`.
        """
        self.check(key)
        loads = [load for load in _inside.get() if load.running]
        if not loads:
            yield
            return
        name, awaited = loads[-1].name, (self._address, key)
        self._awaited.setdefault(name, []).append(awaited)
        try:
            yield
        finally:
            self._awaited[name].remove(awaited)
            if not self._awaited[name]:
                del self._awaited[name]

    async def close(self) -> None:
        """Cancel what is under way."""
        await self._tasks.cancel(_CLOSE_TIMEOUT)


async def _call(loader: Loader) -> Any:
    return await loader()
