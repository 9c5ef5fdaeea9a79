"""Reads values from the near cache or from Redis, and counts hits and misses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from .background import loop_time
from .coherence.near_cache import MAX_STALENESS, MISSING
from .core.engine import Engine
from .exceptions import TransportError, UndecodableValue

NO_REPLY: Final = -3
"""In place of the milliseconds a key has left: Redis did not reply, and that has been counted as an error."""
BATCH: Final = 1_000
"""Keys that are read together, within one deadline."""
_NEAR_SECONDS: Final = 3600.0  # how long the near cache keeps a value that does not expire


class Reader:
    """Reads values. What cannot be decoded is a miss and is removed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._transport = engine.transport
        self._counters = engine.counters
        self._pending = engine.pending
        self._near = engine.near
        self._near_on = engine.near.on
        self._serializer = engine.serializer

    def near(self, key: str) -> Any:
        """The value in the near cache, counted as a hit; MISSING if there is none that may be served now.

        It is served only while a ping sent within the last second has been answered.
        """
        client = self._transport.client
        # Inlined, and not _masked(): a hit costs two microseconds in all.
        if not self._near_on or client is None or (self._pending and self._pending.masks(key)):
            return MISSING
        now, node = asyncio.get_running_loop().time(), client.only or client.node_of(key)
        kept: Any = MISSING if now - node.proven_at > MAX_STALENESS else self._near.get(key, now)
        if kept is MISSING:
            return MISSING
        node.needed_at = now
        self._counters.cache_hits += 1
        return kept if type(kept) is str else self._serializer.decode(kept)  # decode per caller: values are mutable

    async def one(self, key: str, *, with_ttl: bool = False, counted: bool = True) -> tuple[Any, int]:
        """The value in Redis or MISSING, and the milliseconds the key has left.

        The second is -1 if it was not asked for, and NO_REPLY if Redis did not reply.
        """
        if not self._transport.enabled:
            return MISSING, -2
        client, overtaken = self._transport.client, self._masked(key)
        keep = self._near_on and not overtaken and self._near.keeps(key)
        value, left_ms = MISSING, -1
        try:
            if keep or with_ttl:
                value, left_ms = await self._read_with_ttl(key, keep, overtaken)
            else:
                raw = await (self._transport.send("GET", key) if client is None else client.call("GET", key))
                value, _ = self._decoded(key, raw, overtaken)
        except TransportError as problem:
            self._engine.count_error(problem)
            left_ms = NO_REPLY
        if counted:
            self._counters.count(value is not MISSING)
        return value, left_ms

    async def many(self, wanted: Sequence[str]) -> dict[str, Any]:
        """The values of several keys. Keys that miss, or cannot be read, are left out."""
        found: dict[str, Any] = {}
        for start in range(0, len(wanted), BATCH):
            found |= await self._batch(wanted[start : start + BATCH])
        return found

    async def _batch(self, wanted: Sequence[str]) -> dict[str, Any]:
        if not self._transport.enabled:
            return {}
        overtaken = {name for name in wanted if self._masked(name)} if self._pending else set()
        try:
            replies = await self._transport.send_each(*(("GET", name) for name in wanted))
        except TransportError as problem:
            replies = [problem] * len(wanted)
        if (failure := next((reply for reply in replies if isinstance(reply, Exception)), None)) is not None:
            self._engine.count_error(failure)
        found = {}
        for name, reply in zip(wanted, replies, strict=True):
            value, _ = self._decoded(name, reply if isinstance(reply, bytes) else None, name in overtaken)
            self._counters.count(value is not MISSING)
            if value is not MISSING:
                found[name] = value
        return found

    async def _read_with_ttl(self, key: str, keep: bool, overtaken: bool) -> tuple[Any, int]:
        kept, left_ms, asked, token = None, -2, loop_time(), None
        if keep and self._engine.servers.tracks(key) and (client := self._transport.client) is not None:
            token, client.node_of(key).needed_at = self._near.begin(key), asked
        try:
            raw, left_ms = await self._transport.send_all(("GET", key), ("PTTL", key))
            value, plain = self._decoded(key, raw, overtaken)
            kept = value if type(value) is str else plain  # a text is immutable; the rest is decoded per caller
        finally:
            # Counted from before the request, so never longer than the key lives; -2: it expired between the replies.
            expires_at = asked + (_NEAR_SECONDS if left_ms == -1 else left_ms / 1000)
            self._near.end(key, token, kept, expires_at)
        return value, int(left_ms)

    def _masked(self, key: str) -> bool:
        """Whether a pending invalidation forbids serving what Redis holds for ``key``.

        This is asked before the request as well as after the reply: a pending invalidation may be delivered, over
        another connection, after the read it forbids.
        """
        return bool(self._pending) and self._pending.masks(key)

    def _decoded(self, key: str, raw: bytes | None, overtaken: bool) -> tuple[Any, bytes | None]:
        """The value, or MISSING, and the plain bytes that it was decoded from. What cannot be decoded is removed.

        ``overtaken``: whether it was masked before the request.
        """
        if raw is None or overtaken or self._masked(key):
            return MISSING, None
        try:
            plain = self._serializer.open(key, raw)
            return self._serializer.decode(plain), plain
        except UndecodableValue as problem:
            self._engine.count_undecodable(key, problem)
            self._pending.add(key)  # masked at once, and deleted in the background
            self._engine.redeliver_soon()
            return MISSING, None
