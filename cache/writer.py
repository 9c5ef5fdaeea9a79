"""Writes values: in one step with the guards of the key, and pending if Redis does not acknowledge."""

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
from .transport.scripts import STORE
from .validation import checked_key, checked_ttl


class Writer:
    """Stores and deletes values."""

    def __init__(self, engine: Engine, filler: Filler, invalidator: Invalidator) -> None:
        self._engine = engine
        self._transport = engine.transport
        self._filler = filler
        self._invalidator = invalidator
        self._pending = engine.pending
        self._near = engine.near

    async def set(self, key: str, value: Any, ttl: int | None, *, nx: bool, xx: bool) -> bool:
        """See :meth:`cache.RedisCache.set`."""
        arguments = self._arguments(key, value, ttl, nx, xx)
        if not self._transport.enabled:
            self._not_stored(key, nx)
            return False
        self._near.drop(key)
        self._filler.detach((key,))
        names = (key, keys.lease(key), keys.stale(key))
        before, deadline = index_entry(key), asyncio.get_running_loop().time() + self._transport.deadline
        sequence = self._pending.sequence
        try:
            stored = await self._transport.run(STORE, names, *arguments, before=before, deadline=deadline)
        except TransportError as problem:
            self._engine.count_error(problem)
            self._not_stored(key, nx)
            return False
        except asyncio.CancelledError:  # Redis may or may not have executed it
            self._not_stored(key, nx)
            raise
        finally:
            self._near.drop(key)
        if stored and self._pending:
            self._pending.acknowledge_store(key, sequence)
        return bool(stored)

    async def delete(self, names: Sequence[str]) -> int:
        """See :meth:`cache.RedisCache.delete`."""
        if names and self._transport.enabled:
            try:
                return await self._invalidator.delete(names)
            except TransportError as problem:
                self._engine.count_error(problem)
            except asyncio.CancelledError:  # Redis may or may not have executed it
                self._invalidator.enqueue(PendingInvalidations(tuple(names)))
                raise
        self._invalidator.enqueue(PendingInvalidations(tuple(names)))
        return 0

    def _arguments(self, key: str, value: Any, ttl: int | None, nx: bool, xx: bool) -> tuple[Any, ...]:
        """The arguments of SET after the key, all checked."""
        arguments: tuple[Any, ...] = (self._engine.serializer.dumps(checked_key(key), value),)
        if ttl is not None:
            arguments += ("EX", checked_ttl(ttl))
        if nx and xx:
            raise ValueError("nx and xx exclude each other: nothing can both exist and not exist")
        return (*arguments, "NX" if nx else "XX") if nx or xx else arguments

    def _not_stored(self, key: str, nx: bool) -> None:
        """The old value may still be in Redis, and is no longer the right one."""
        if not nx:
            self._invalidator.enqueue(PendingInvalidations((key,)))
