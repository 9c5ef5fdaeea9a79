"""Looks keys up and loads what is missing: near cache, loads under way, Redis, then the loader under a lease."""

from __future__ import annotations

from typing import Any

from ..background import loop_time
from ..coherence.near_cache import MISSING
from ..core.engine import Engine
from ..reader import NO_REPLY, Reader
from .fill import Filler
from .loaders import Loader
from .policy import EntryOptions


class Lookup:
    """The way from a key to its value, or to a load of it.

    Args:
        engine: the shared parts of the cache.
        reader: reads what is there, and counts it.
        filler: loads what is not.
    """

    def __init__(self, engine: Engine, reader: Reader, filler: Filler) -> None:
        self._counters = engine.counters
        self._transport = engine.transport
        self._reader = reader
        self._filler = filler

    async def get_or_load(self, key: str, loader: Loader, options: EntryOptions) -> Any:
        """The value, counted as a hit or a miss.

        Raises:
            LoadCycle: the loader asked for its own key.
            LoadTimeout: the loader did not end in time.
            Exception: what the loader raises.
        """
        refresh_below_ms = options.refresh_below_ms
        self._filler.loaders.check(key)
        if refresh_below_ms is None and (value := self._reader.near(key)) is not MISSING:
            return value
        began = loop_time()
        if self._transport.enabled and self._filler.busy(key, options):
            value, hit = await self._filler.fill(key, loader, options, began)
            self._counters.count(hit)
            return value
        value, left_ms = await self._reader.one(key, with_ttl=refresh_below_ms is not None)
        if value is MISSING:
            return (await self._filler.fill(key, loader, options, began, failed=left_ms == NO_REPLY))[0]
        # A None has a TTL of its own, shorter, and is loaded again when that has passed.
        if refresh_below_ms is not None and value is not None and 0 <= left_ms < refresh_below_ms:
            self._filler.refresh(key, loader, options, refresh_below_ms)
        return value

    async def warm(self, key: str, loader: Loader, options: EntryOptions) -> Any:
        """Load the value unless it is there. That is no lookup: a load counts as warmed, a value that is there not.

        Raises:
            Exception: as :meth:`get_or_load`.
        """
        value, hit = await self._filler.fill(key, loader, options, loop_time())
        self._counters.warmed += not hit
        return value
