"""Reading: from the near cache, over the lane, or not at all, and always counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from .coherence.near_cache import MAX_STALENESS, MISSING
from .core.engine import Engine
from .exceptions import TransportError, UndecodableValue
from .serialization import codec

if TYPE_CHECKING:
    from .serialization.encryption import ValueCipher
    from .transport.multiplexer import MultiplexedClient
UNANSWERED: Final = -3
"""In place of the milliseconds a key has left: Redis did not say, and that has been counted."""


class Reader:
    """Finds values. What cannot be decoded is a miss and is removed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._counters = engine.counters
        self._pending = engine.pending
        self._near = engine.near
        self._keeping = engine.near.on
        self._sealer = engine.sealer
        self._most = engine.max_value_bytes

    async def one(self, key: str, *, with_ttl: bool = False) -> tuple[Any, int]:
        """What Redis says, counted as hit or miss, and the milliseconds the key has left if they were asked for.

        UNANSWERED in place of these where it said nothing.
        """
        engine = self._engine
        if not engine.enabled:
            return MISSING, -2
        near = self._keeping and self._near.keeps(key) and not self._covered(key)
        left, lane = -1, self._open_lane()
        overtaken = lane is None and self._covered(key)
        try:
            if near or with_ttl:
                raw, left = await self._read_with_ttl(key, near)
            else:
                raw = await (engine.send("GET", key) if lane is None else lane.call("GET", key))
                if self._sealer is not None:
                    raw = await self._opened(self._sealer, key, raw)
        except TransportError as problem:
            engine.count_error(problem)
            raw, left = None, UNANSWERED
        if overtaken:
            raw = None
        if raw is not None and not self._pending and len(raw) <= self._most:  # usual: no further coroutine
            try:
                value = codec.decode(raw)
            except UndecodableValue:
                pass
            else:
                self._counters.cache_hits += 1
                return value, left
        return await self._decoded(key, raw), left

    def kept(self, key: str) -> Any:
        """What the near cache may serve now, counted as a hit; MISSING for nothing.

        It serves only while a ping sent within the last second has been answered.
        """
        lane = self._engine.lane
        if not self._keeping or lane is None or (self._pending and self._pending.covers(key)):
            return MISSING
        now = asyncio.get_running_loop().time()
        kept: Any = MISSING if now - lane.proven_at > MAX_STALENESS else self._near.get(key, now)
        if kept is MISSING:
            return MISSING
        self._counters.cache_hits += 1
        return kept if type(kept) is str else codec.decode(kept)

    async def _read_with_ttl(self, key: str, near: bool) -> tuple[bytes | None, int]:
        token = self._near.begin(key) if near else None
        raw, left, asked = None, -2, self._loop_time()
        try:
            raw, left = await self._engine.send_all(("GET", key), ("PTTL", key))
            if self._sealer is not None:  # before it is kept near: what is kept in this process is kept open
                raw = await self._opened(self._sealer, key, raw)
        finally:
            # Counted from before the question, so never above what the key has left; -2: gone between the two
            # answers. A value without expiry may be kept for as long as nothing says that it changed.
            self._near.end(token, _keepable(raw), asked + (3600.0 if left == -1 else left / 1000))
        return raw, int(left)

    async def many(self, wanted: Sequence[str]) -> dict[str, Any]:
        """The values of several keys; those that miss, or cannot be read, are left out."""
        if not wanted or not self._engine.enabled:
            return {}
        overtaken = set() if self._open_lane() is not None else {name for name in wanted if self._covered(name)}
        try:
            replies = await self._engine.send_each(*(("GET", name) for name in wanted))
        except TransportError as problem:
            replies = [problem] * len(wanted)
        if (failure := next((reply for reply in replies if isinstance(reply, Exception)), None)) is not None:
            self._engine.count_error(failure)
        raws = [
            reply if isinstance(reply, bytes) and name not in overtaken else None
            for name, reply in zip(wanted, replies, strict=True)
        ]
        if (sealer := self._sealer) is not None:
            raws = [await self._opened(sealer, name, raw) for name, raw in zip(wanted, raws, strict=True)]
        found = {name: await self._decoded(name, raw) for name, raw in zip(wanted, raws, strict=True)}
        return {name: value for name, value in found.items() if value is not MISSING}

    def _open_lane(self) -> MultiplexedClient | None:
        """The lane, if it is up. On it answers come in order; connections of the pool overtake each other.

        Without it, what must not be served as it is asked for must not be served at all: the debt may be paid
        before the answer is here.
        """
        lane = self._engine.lane
        return lane if lane is not None and lane.up else None

    def _covered(self, key: str) -> bool:
        """Whether what Redis has for ``key`` must not be served now."""
        return bool(self._pending) and self._pending.covers(key)

    async def _decoded(self, key: str, raw: bytes | None) -> Any:
        """The value behind a reply, counted as hit or miss. What cannot be decoded is removed."""
        if raw is not None and not self._covered(key):
            try:
                value = codec.decode(codec.checked_size(raw, self._most))
            except UndecodableValue as problem:
                self._remove(key, problem)
            else:
                self._counters.cache_hits += 1
                return value
        self._counters.cache_misses += 1
        return MISSING

    async def _opened(self, sealer: ValueCipher, key: str, raw: bytes | None) -> bytes | None:
        """``raw`` as it was before it was sealed. What cannot be opened is removed, and None."""
        if raw is None:
            return None
        try:
            return sealer.open(key, raw)
        except UndecodableValue as problem:
            self._remove(key, problem)
            return None

    def _remove(self, key: str, problem: UndecodableValue) -> None:
        """Not served from now on, and removed at once, but nobody waits for that."""
        self._engine.count_undecodable(key, problem)
        self._pending.add(key)
        self._engine.settle_soon()

    def _loop_time(self) -> float:
        return asyncio.get_running_loop().time()


def _keepable(raw: bytes | None) -> bytes | str | None:
    """A text decoded, since nobody can change it; anything else as it is, so that every caller gets his own."""
    try:
        value = None if raw is None else codec.decode(raw)
    except UndecodableValue:
        return None
    return value if type(value) is str else raw
