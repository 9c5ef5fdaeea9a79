"""Leads: loads under a lease, and stores what the loader returned while the lease is still held.

The protocol is described in ``loading.fill``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from types import NoneType
from typing import Final

from ..background import BackgroundTasks
from ..core.engine import Engine
from ..exceptions import LoadCycle, LoadTimeout, TransportError, UnserialisableValue, ValueTooLarge
from ..serialization.codec import NONE
from .lease import SLOW, Lease, Leases
from .loaders import Loader, Loaders
from .policy import DELETE, EntryOptions

logger = logging.getLogger("cache")
PROGRAMMING_ERRORS: Final = (UnserialisableValue, LoadCycle)
"""Raised also if there is a last good value: they must be seen."""


class Leader:
    """Loads for every caller that waits, in this process and others.

    Args:
        engine: the shared parts of the cache.
        leases: renews, uses and releases the lease.
        loaders: runs the loader.
        background: keeps a load that continues without a caller.
        on_lost: called with the key whose lease was lost while its loader ran.
    """

    def __init__(
        self,
        engine: Engine,
        leases: Leases,
        loaders: Loaders,
        background: BackgroundTasks,
        *,
        on_lost: Callable[[Collection[str]], None],
    ) -> None:
        self._engine = engine
        self._serializer = engine.serializer
        self._leases = leases
        self._loaders = loaders
        self._on_lost = on_lost
        self._background = background

    async def lead(self, lease: Lease, loader: Loader, options: EntryOptions, last_good: bytes | None) -> bytes:
        """Load under the lease, and return the value encoded; the last good one if the loader is slow or fails.

        Raises:
            UnserialisableValue: the loader returned what cannot be stored.
            LoadCycle: the loader asked for the key that it loads.
            Exception: what the loader raises, unless there is a last good value.
        """
        work = self.load(lease, loader, options)
        load: asyncio.Task[bytes] = self._background.spawn(work, name="cache-load")
        try:
            if last_good is None:
                return await load
            await asyncio.wait({load}, timeout=SLOW)
        except asyncio.CancelledError:
            load.cancel()
            self._leases.release_later(lease)  # a load that has not taken its first step cannot release it
            raise
        if not load.done():  # it continues, and fills for the next caller
            load.add_done_callback(_log_failure)
        elif not load.cancelled() and isinstance(load.exception(), (*PROGRAMMING_ERRORS, NoneType)):
            return load.result()
        else:
            _log_failure(load)
        return last_good

    async def load(self, lease: Lease, loader: Loader, options: EntryOptions) -> bytes:
        """Load under the lease, store the value, and return it encoded. Raises what the loader raises."""
        # A caller that comes after the lease was lost must not join: this load may have begun before an invalidation.
        holding = self._leases.hold(lease, lambda: self._on_lost((lease.key,)))
        renewing = asyncio.create_task(holding, name="cache-lease")
        try:
            plain = await self.loaded(lease.key, loader, options)
            await self._store(lease, plain, options)
        except BaseException as problem:
            failed = isinstance(problem, Exception) and not isinstance(problem, PROGRAMMING_ERRORS)
            self._leases.release_later(lease, options.retry_after if failed else 0.0)
            raise
        finally:
            renewing.cancel()
        return plain

    async def loaded(self, key: str, loader: Loader, options: EntryOptions) -> bytes:
        """What the loader returns, encoded: an unserialisable value is an error with or without Redis."""
        return self._serializer.encode(await self._loaders.run(key, loader, options.load_timeout))

    async def _store(self, lease: Lease, plain: bytes, options: EntryOptions) -> None:
        key, pending = lease.key, self._engine.pending
        ttls_ms = options.ttls_ms(none=plain == NONE)
        try:
            raw = self._serializer.seal(key, plain)
        except ValueTooLarge as problem:
            logger.warning("a loaded value is not stored: %s", problem)
            ttls_ms = DELETE, DELETE
        sequence = pending.sequence
        if pending.newest(key) > lease.delivered:
            # Invalidated since the load began, and Redis has not acknowledged it yet.
            self._leases.release_later(lease)
            return
        self._engine.near.drop(key)
        if ttls_ms[0] == DELETE:
            raw = b""
        try:
            if await self._leases.fill(lease, raw, ttls_ms):
                pending.acknowledge_store(key, sequence)
        except TransportError as problem:
            self._engine.count_error(problem)
            self._leases.release_later(lease)
            if ttls_ms[0] == DELETE:
                pending.add(key)  # the old value may still be there, and the source no longer has it


def _log_failure(load: asyncio.Task[bytes]) -> None:
    """Log why the last good value was served. A time-out was logged when it happened."""
    if not load.cancelled() and (problem := load.exception()) and not isinstance(problem, LoadTimeout):
        logger.warning("a loader failed (%s): the last good value is served", type(problem).__name__)
