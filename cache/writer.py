"""Writing: in one step with what guards the key, and owed where Redis cannot be told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from . import keys
from .coherence.pending import PendingInvalidations
from .coherence.user_index import index_entry
from .core.engine import Engine
from .exceptions import TransportError
from .invalidation.invalidator import Invalidator
from .loading.fill import Filler
from .serialization import codec
from .transport.scripts import STORE
from .validation import checked_key, checked_ttl


class Writer:
    """Stores and removes values."""

    def __init__(self, engine: Engine, filler: Filler, invalidator: Invalidator) -> None:
        self._engine = engine
        self._filler = filler
        self._invalidator = invalidator
        self._pending = engine.pending
        self._near = engine.near

    async def set(self, key: str, value: Any, ttl: int | None, *, nx: bool, xx: bool) -> bool:
        """See :meth:`cache.RedisCache.set`."""
        arguments = self._arguments(key, value, ttl, nx, xx)
        if not self._engine.enabled:
            self._owe(key, nx)
            return False
        self._near.drop(key)
        self._filler.detach((key,))
        names = (key, keys.lease(key), keys.stale(key))
        before, ends = index_entry(key), asyncio.get_running_loop().time() + self._engine.deadline
        paid = self._pending.serial
        try:
            stored = await self._engine.run(STORE, names, *arguments, before=before, ends=ends)
        except TransportError as problem:
            self._engine.count_error(problem)
            self._owe(key, nx)
            return False
        except asyncio.CancelledError:  # nobody knows whether Redis was told
            self._owe(key, nx)
            raise
        finally:
            self._near.drop(key)
        if stored and self._pending:
            self._pending.settle(key, paid)
        return bool(stored)

    async def delete(self, doomed: Sequence[str]) -> int:
        """See :meth:`cache.RedisCache.delete`."""
        if doomed and self._engine.enabled:
            try:
                return await self._invalidator.delete(doomed)
            except TransportError as problem:
                self._engine.count_error(problem)
            except asyncio.CancelledError:  # nobody knows whether Redis was told
                self._engine.owe(PendingInvalidations(tuple(doomed)))
                raise
        self._engine.owe(PendingInvalidations(tuple(doomed)))
        return 0

    def _arguments(self, key: str, value: Any, ttl: int | None, nx: bool, xx: bool) -> tuple[Any, ...]:
        """What SET is given after the key, once everything is known to be as it should be."""
        checked_key(key)
        raw = codec.encode(value)
        if len(raw) > self._engine.max_value_bytes:
            raise ValueError(
                f"the value has {len(raw)} bytes; at most {self._engine.max_value_bytes} are cached "
                "(CACHE_MAX_VALUE_BYTES)"
            )
        if (sealer := self._engine.sealer) is not None:
            raw = sealer.seal(key, raw)
        arguments: tuple[Any, ...] = (raw,)
        if ttl is not None:
            arguments += ("EX", checked_ttl(ttl))
        if nx and xx:
            raise ValueError("nx and xx exclude each other: nothing can both exist and not exist")
        return (*arguments, "NX" if nx else "XX") if nx or xx else arguments

    def _owe(self, key: str, nx: bool) -> None:
        """A value could not be stored: the old one may still be there, and it is no longer the right one."""
        if not nx:
            self._engine.owe(PendingInvalidations((key,)))
