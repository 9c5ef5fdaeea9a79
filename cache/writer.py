"""Writes values: in one step with the guards of the key, and pending if Redis does not acknowledge."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from . import keys
from .background import loop_time
from .coherence.user_index import index_entry
from .core.engine import Engine
from .exceptions import TransportError
from .invalidation.invalidator import Invalidator
from .loading.fill import Filler
from .transport.scripts import INCREMENT, STORE, Script
from .validation import checked_amount, checked_key, checked_ttl

BATCH: Final = 250
"""Values that are stored or deleted together, within a deadline that a busy machine keeps too. No slower than more."""


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
        return await self._store(key, self._arguments(key, value, ttl, nx, xx), nx)

    async def set_many(self, values: Mapping[str, Any], ttl: int | None) -> int:
        """See :meth:`cache.RedisCache.set_many`."""
        checked: list[tuple[str, tuple[Any, ...]]] = []
        for key, value in list(values.items()):
            checked.append((key, self._arguments(key, value, ttl, False, False)))
            if not len(checked) % BATCH:
                await asyncio.sleep(0)  # other callers have deadlines too
        stored = 0
        while checked:
            batch, checked = checked[:BATCH], checked[BATCH:]
            try:
                stored += sum(await asyncio.gather(*(self._store(key, arguments, False) for key, arguments in batch)))
            except asyncio.CancelledError:
                self._pending.add(*(key for key, _ in checked))
                raise
        return stored

    async def incr(self, key: str, by: int, ttl: int | None) -> int | None:
        """See :meth:`cache.RedisCache.incr`."""
        arguments = checked_amount(by), 0 if ttl is None else checked_ttl(ttl) * 1000
        if not self._engine.serializer.may_count(checked_key(key)):
            self._engine.log_once("users' counters", "a user's counter is not kept: it cannot be encrypted")
            return None
        try:
            return int(await self._run(INCREMENT, key, arguments, adds=True))
        except TransportError as problem:
            self._engine.count_error(problem)
            return None

    async def _store(self, key: str, arguments: tuple[Any, ...], nx: bool) -> bool:
        stored: bool | None = None
        try:
            if self._transport.enabled:
                stored = bool(await self._run(STORE, key, arguments))
        except TransportError as problem:
            self._engine.count_error(problem)
        finally:  # also if the caller is cancelled: Redis may or may not have executed it
            if stored is None and not nx:  # the old value may still be there, and is no longer the right one
                self._pending.add(key)
        return bool(stored)

    async def _run(self, script: Script, key: str, arguments: tuple[Any, ...], *, adds: bool = False) -> Any:
        """Run a script that writes ``key``, or ``adds`` to what is there. Returns its reply; raises TransportError."""
        self._near.drop(key)
        self._filler.detach((key,))
        names = (key, keys.lease(key), keys.stale(key))
        before, deadline = index_entry(key), loop_time() + self._transport.deadline
        sequence = self._pending.sequence
        if adds and self._pending and self._pending.newest(key):  # what was deleted begins anew
            before = ((self._transport.capabilities.delete, *names), *before)
        try:
            reply = await self._transport.run(script, names, *arguments, before=before, deadline=deadline)
        finally:
            self._near.drop(key)
        if reply and not adds:
            self._pending.delivered.note(key)
        if (adds or reply) and self._pending:  # 0 of STORE: not stored
            self._pending.acknowledge_store(key, sequence)
        return reply

    async def delete(self, names: Sequence[str]) -> int:
        """See :meth:`cache.RedisCache.delete`."""
        deleted = 0
        try:
            while names and self._transport.enabled:
                groups = self._transport.by_node(names[:BATCH])
                names = names[BATCH:]  # from here on each group answers for its own
                one = len(groups) == 1
                counts = [await self._delete(groups[0])] if one else await asyncio.gather(*map(self._delete, groups))
                deleted += sum(counts)
        except TransportError as problem:
            self._engine.count_error(problem)
        finally:  # also if the caller is cancelled
            if names:
                self._pending.add(*names)
        return deleted

    async def _delete(self, names: Sequence[str]) -> int:
        deleted: int | None = None
        try:
            deleted = await self._invalidator.delete(names)
        except TransportError as problem:
            self._engine.count_error(problem)
        finally:  # also if the caller is cancelled: Redis may or may not have executed it
            if deleted is None:
                self._pending.add(*names)
        return deleted or 0

    def _arguments(self, key: str, value: Any, ttl: int | None, nx: bool, xx: bool) -> tuple[Any, ...]:
        """The arguments of SET after the key, all checked."""
        serializer = self._engine.serializer
        arguments: tuple[Any, ...] = (serializer.seal(checked_key(key), serializer.encode(value)),)
        if ttl is not None:
            arguments += ("EX", checked_ttl(ttl))
        if nx and xx:
            raise ValueError("nx and xx exclude each other: nothing can both exist and not exist")
        return (*arguments, "NX" if nx else "XX") if nx or xx else arguments
