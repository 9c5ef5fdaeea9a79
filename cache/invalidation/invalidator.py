"""Deletes cached values: by key, by pattern, by user.

A key's lease is deleted before the key, so a loader that began before the invalidation can no longer fill. What Redis
does not acknowledge becomes a pending invalidation (``coherence.pending``).

One user's keys are found without a scan: the families that every user has are known by name, and an index has the
names of the rest (``coherence.user_index``). The index is used only if the server cannot evict it (no memory limit, or
the policy ``noeviction``); otherwise the keyspace is scanned before the call returns. Keys that other programs wrote
are in no index. In a small keyspace a scan is cheap and always made; in a large one it runs in the background, one
scan for all waiting users. Until it has ended, this process serves nothing that it may delete
(``coherence.unindexed_keys``); an interrupted scan is repeated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import keys
from ..coherence.glob import matches
from ..coherence.pending import PendingInvalidations, reaches
from ..coherence.user_index import UserIndex
from ..core.engine import Engine
from ..exceptions import CommandRejected, TransportError
from ..loading.fill import Filler
from .background_scan import BackgroundScan
from .redelivery import Redelivery
from .scan import delete_matching, spares_reserved

SMALL: Final = 2_000
"""Keys up to which a scan costs no more than reading the index."""
_POLICY_TTL: Final = 30.0  # seconds for which the server's eviction policy is remembered


@dataclass(slots=True)
class Invalidation:
    """The outcome of an invalidation.

    Attributes:
        deleted: keys that were deleted by the time the call returned; a background scan may delete more.
        complete: whether Redis acknowledged all of it.
    """

    deleted: int = 0
    complete: bool = False

    def count(self, deleted: int) -> None:
        """Add to :attr:`deleted`."""
        self.deleted += deleted


class Invalidator:
    """Deletes values everywhere they are kept: in Redis, in this process, and in loads under way."""

    def __init__(self, engine: Engine, filler: Filler) -> None:
        self._engine = engine
        self._transport = engine.transport
        self._pending = engine.pending
        self._filler = filler
        self._evicts = True
        self._policy_read_at = -_POLICY_TTL
        self._index = UserIndex(engine.transport)
        self.background_scan = BackgroundScan(engine, self._drop)
        self._listeners: list[Callable[[PendingInvalidations], None]] = []

    # -- pending invalidations -------------------------------------------------------------------------

    @property
    def undelivered(self) -> bool:
        """Whether an invalidation waits for Redis to acknowledge it. A scan under way for unindexed keys does not."""
        return self._pending.undelivered or self.background_scan.interrupted

    def undelivered_for(self, *user_ids: str) -> set[str]:
        """Those of these users whose keys an undelivered invalidation may include."""
        return set(user_ids) if self.background_scan.interrupted else self._pending.undelivered_for(user_ids)

    @property
    def pending(self) -> PendingInvalidations:
        """What Redis has not acknowledged."""
        return self._pending.invalidations

    def export_pending(self) -> PendingInvalidations:
        """What another cache of the same Redis has to take over once this one is closed."""
        return self._pending.export()

    def merge(self, pending: PendingInvalidations) -> None:
        """Obey and deliver what another cache could not deliver to the same Redis. Call it in this cache's loop."""
        if pending.patterns:
            self._drop_all()
        self._drop(pending.keys)
        self._pending.merge(pending)
        self._engine.redeliver_soon()

    def on_enqueue(self, listener: Callable[[PendingInvalidations], None]) -> None:
        """Call ``listener``, in this cache's loop, with each invalidation that becomes pending."""
        self._listeners.append(listener)

    def enqueue(self, pending: PendingInvalidations) -> None:
        """Redis did not acknowledge these: obey them here, deliver them later."""
        self._pending.merge(pending)
        for listener in self._listeners:
            listener(pending)

    # -- operations ------------------------------------------------------------------------------------

    async def delete(self, names: Sequence[str]) -> int:
        """Delete keys. Returns how many existed.

        Raises:
            TransportError: Redis did not acknowledge it.
        """
        self._drop(names)
        guards = [guard for name in names for guard in (keys.lease(name), keys.stale(name))]
        deleted = await self._transport.unlink(names, before=guards)
        self._drop(names)
        return deleted

    async def invalidate(self, pattern: str, user_id: str | None) -> Invalidation:
        """Delete what ``pattern`` reaches, for one user or for all. What cannot be completed becomes pending."""
        outcome = Invalidation()
        try:
            if self._transport.enabled:
                await self._delete_matching(pattern, user_id, outcome)
        except TransportError as problem:
            self._engine.count_error(problem)
        finally:  # also if the caller is cancelled: how far it got is unknown
            if not outcome.complete:
                self.enqueue(PendingInvalidations(patterns=((pattern, user_id),)))
        return outcome

    async def clear(self) -> None:
        """Delete every value of every user.

        Raises:
            TransportError: Redis did not acknowledge all of it.
        """
        await self._of_all_users(f"{keys.USERS}*", Invalidation())

    async def redeliver(self) -> None:
        """Deliver what is pending, and repeat an interrupted scan.

        Raises:
            TransportError: what was not acknowledged stays pending.
        """
        self.background_scan.start()
        await Redelivery(self._pending, self.delete, self._delete_pattern).run()

    async def close(self) -> None:
        """Let a background scan end, within ``background_scan.ON_CLOSE``. The rest stays masked and pending."""
        await self.background_scan.close()

    async def _delete_pattern(self, pattern: str, user_id: str | None) -> int:
        outcome = Invalidation()
        await self._delete_matching(pattern, user_id, outcome)
        return outcome.deleted

    async def _delete_matching(self, pattern: str, user_id: str | None, outcome: Invalidation) -> None:
        if user_id is None:
            await self._of_all_users(pattern, outcome)
        else:
            await self._of_user(user_id, pattern, outcome)

    async def _of_all_users(self, pattern: str, outcome: Invalidation) -> None:
        self._drop_all()
        await delete_matching(self._transport, pattern, spares_reserved(pattern), outcome.count)
        self._drop_all()
        outcome.complete = True

    async def _of_user(self, user_id: str, pattern: str, outcome: Invalidation) -> None:
        self._drop_all()
        # Two commands in one loop tick. Not send_all: in a cluster DBSIZE goes to every node.
        size, names = await asyncio.gather(self._transport.send("DBSIZE"), self._index.names(user_id))
        if names is None:
            await self._index.rebuild(user_id, await self._scan_user(user_id, pattern, outcome))
        elif int(size) <= SMALL or await self._server_evicts():
            await self._scan_user(user_id, pattern, outcome)
        else:
            known = [keys.user_prefix(user_id) + name for name in names]
            outcome.count(await self.delete([key for key in known if matches(pattern, key)]))
            self._pending.mask(pattern, user_id, names)
            self.background_scan.start()
        self._drop_all()
        outcome.complete = True

    async def _scan_user(self, user_id: str, pattern: str, outcome: Invalidation) -> set[str]:
        """Scan one user's keys and delete what ``pattern`` reaches. Returns the names of the others."""
        spared: set[str] = set()
        prefix = keys.user_prefix(user_id)

        def wanted(key: str) -> bool:
            if reaches(pattern, user_id, key):
                return True
            spared.add(key.removeprefix(prefix))
            return False

        await delete_matching(self._transport, keys.user_pattern(user_id), wanted, outcome.count)
        return spared

    async def _server_evicts(self) -> bool:
        """Whether the server may evict an index; assumed if it does not say."""
        now = time.monotonic()
        if now - self._policy_read_at >= _POLICY_TTL:
            try:
                info = await self._transport.send("INFO", "memory")
            except CommandRejected:
                info = None
            self._policy_read_at = now
            self._evicts = not _never_evicts(info)
        return self._evicts

    # -- in this process -------------------------------------------------------------------------------

    def _drop(self, names: Collection[str]) -> None:
        self._engine.near.drop_many(names)
        self._filler.detach(names)

    def _drop_all(self) -> None:
        self._engine.near.drop_all()
        self._filler.detach_all()


def _never_evicts(info: Any) -> bool:
    """Whether the memory section of INFO, as text or as redis-py's dict, rules out eviction."""
    if not isinstance(info, dict):
        text = info.decode() if isinstance(info, bytes) else str(info)
        info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    policy = info.get("maxmemory_policy")
    return policy == "noeviction" or (policy is not None and str(info.get("maxmemory")) == "0")
