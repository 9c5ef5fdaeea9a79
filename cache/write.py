"""Writing: in one step with what guards the key, and owed where Redis cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import codec, keys
from .arguments import checked_key, checked_ttl
from .engine import FAILURES, Engine
from .fill import Filler
from .invalidation import Invalidator


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
        command = self._command(key, value, ttl, nx, xx)
        if not self._engine.enabled:
            self._owe(key, nx)
            return False
        self._near.drop(key)
        self._filler.detach((key,))
        try:
            if entry := self._invalidator.index_entry(key, ttl):
                await self._engine.send_all(*entry)
            # Lease and last good value go in the same step: no load begun before may overwrite this value.
            stored, _ = await self._engine.atomically(command, ("UNLINK", keys.lease(key), keys.stale(key)))
        except FAILURES:
            self._engine.count_error()
            self._owe(key, nx)
            return False
        finally:
            self._near.drop(key)
        if stored and self._pending:
            self._pending.settle(key)
        return bool(stored)

    async def delete(self, doomed: Sequence[str]) -> int:
        """See :meth:`cache.RedisCache.delete`."""
        if doomed and self._engine.enabled:
            try:
                return await self._invalidator.delete(doomed)
            except FAILURES:
                self._engine.count_error()
        self._pending.add(*doomed)
        return 0

    def _command(self, key: str, value: Any, ttl: int | None, nx: bool, xx: bool) -> tuple[Any, ...]:
        raw = codec.encode(value)
        if len(raw) > self._engine.max_value_bytes:
            raise ValueError(
                f"the value has {len(raw)} bytes; at most {self._engine.max_value_bytes} are cached "
                "(CACHE_MAX_VALUE_BYTES)"
            )
        command: tuple[Any, ...] = ("SET", checked_key(key), raw)
        if ttl is not None:
            command += ("EX", checked_ttl(ttl))
        if nx and xx:
            raise ValueError("nx and xx exclude each other: nothing can both exist and not exist")
        return (*command, "NX" if nx else "XX") if nx or xx else command

    def _owe(self, key: str, nx: bool) -> None:
        """A value could not be stored: the old one may still be there, and it is no longer the right one."""
        if not nx:
            self._pending.add(key)
