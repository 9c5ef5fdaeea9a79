"""The parts of a cache, put together, and its life: connecting, on and off, closing, and what it owes to Redis."""

from __future__ import annotations

from collections.abc import Callable

from .coherence.pending import PendingInvalidations
from .coherence.server_epoch import Ask
from .core.engine import Engine
from .invalidation.invalidator import Invalidator
from .loading.fill import Filler
from .locks import Locks
from .reader import Reader
from .settings import CacheSettings
from .writer import Writer


class CacheLife:
    """What :class:`cache.redis_cache.RedisCache` is beside its operations; the arguments are described there."""

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        enabled: bool | None = None,
        settings: CacheSettings | None = None,
    ) -> None:
        self.settings = settings or CacheSettings.from_env(redis_url, enabled=enabled)
        self._engine = Engine(self.settings)
        self._filler = Filler(self._engine)
        self._invalidator = Invalidator(self._engine, self._filler)
        self._engine.settle, self._engine.clear = self._invalidator.settle, self._invalidator.clear
        self._writer = Writer(self._engine, self._filler, self._invalidator)
        self._reader = Reader(self._engine)
        self._locks = Locks(self._engine.call)

    @property
    def enabled(self) -> bool:
        """Whether the cache is switched on."""
        return self._engine.enabled

    @property
    def connected(self) -> bool:
        """Whether Redis is believed to answer right now."""
        return self._engine.connected

    @property
    def owing(self) -> bool:
        """Whether an invalidation still waits to be told to Redis.

        One that has been told, and of which a walk for keys that others wrote is under way, does not.
        """
        return self._engine.pending.owes or self._invalidator.cut_off

    def owes(self, *user_ids: str) -> set[str]:
        """Those of these users about whose keys an invalidation may still wait to be told to Redis."""
        return set(user_ids) if self._invalidator.cut_off else self._engine.pending.owed_of(user_ids)

    def recall_with(self, ask: Ask | None) -> None:
        """Let ``ask`` be called when Redis may have forgotten what it was told: restarted, restored, or another server.

        It invalidates once more what changed lately, and says whether that is all there is. Until it has returned no
        value of a user is served. Where it says no, and where there is none, everything under ``user:*`` is removed.

        Args:
            ask: an async callable without arguments. What it raises counts as no.
        """
        self._engine.recall.ask = ask

    @property
    def debts(self) -> PendingInvalidations:
        """What waits to be told to Redis."""
        return self._engine.pending.debts

    @property
    def left(self) -> PendingInvalidations:
        """Once it is closed: what it has not told, and what it has not walked for."""
        return self._engine.pending.left

    def share_debts(self, tell: Callable[[PendingInvalidations], None]) -> None:
        """Let ``tell`` be called, in this cache's loop, with what Redis could not be told."""
        self._engine.on_owed = tell

    def take_over(self, debts: PendingInvalidations) -> None:
        """Serve nothing of what another cache could not tell the same Redis, and tell it. In this cache's loop."""
        self._invalidator.take_over(debts)

    async def initialize(self) -> bool:
        """Begin connecting, and wait for it at most ``CACHE_CONNECT_WAIT_MS``.

        Redis being down is not an error and not final: connecting goes on in the background, and the cache is
        used as soon as Redis answers.

        Returns:
            Whether Redis has answered.
        """
        return await self._engine.start()

    async def close(self) -> None:
        """Send the last counters and close every connection. Bounded: a silent Redis delays it briefly.

        From then on every call answers neutrally, as with Redis away, unless it is initialised again.
        """
        self._engine.closed = True
        await self._filler.close()
        await self._invalidator.close()
        await self._locks.close(2 * self._engine.deadline)
        await self._engine.close()

    def enable(self) -> None:
        """Switch the cache on, at run time. It is used as soon as Redis answers."""
        self._engine.enable()

    def disable(self) -> None:
        """Switch the cache off, at run time: neutral answers and no traffic until ``enable()``.

        Invalidations asked for meanwhile are remembered and delivered when it is switched on again.
        """
        self._engine.disable()
