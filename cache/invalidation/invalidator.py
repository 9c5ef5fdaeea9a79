"""Making cached values go away: by key, by pattern, by user.

Whatever goes, its lease goes before it: a loader that began before the invalidation can no longer fill. What Redis
cannot be told is remembered and obeyed here (:mod:`cache.coherence.pending`).

One user's keys are found without walking the keyspace: the families every user has are known by name, and the names
of the rest are kept in a set (``user_index``). The set is trusted only where the server cannot evict it (no
memory limit, or the policy ``noeviction``); elsewhere the keyspace is walked before the call returns. Keys that
somebody else wrote, with redis-cli say, are in no index. In a small keyspace the walk is cheap and is always made;
in a large one it is made in the background, one walk for all users who are waiting for it. Until it has ended, none of
what it may find is served by this process (:mod:`cache.coherence.strays`), and a walk that was cut off is made again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .. import keys
from ..coherence.glob import matches
from ..coherence.pending import PendingInvalidations, reaches
from ..coherence.strays import Waiting
from ..coherence.user_index import UserIndex
from ..exceptions import CommandRejected, TransportError
from .redelivery import Redelivery
from .scan import guarded, pages, remove, spares_reserved, sweep

if TYPE_CHECKING:
    from ..core.engine import Engine
    from ..loading.fill import Filler

SMALL: Final = 2_000
"""Keys up to which a walk costs no more than asking the index does."""
_STEP: Final = 250  # keys a walk looks at in one go: nobody waits for it, and others are not to wait because of it
_POLICY_AGE: Final = 30.0  # seconds for which the server's eviction policy is believed not to change
_LAST_WALK: Final = 5.0  # seconds that closing waits for a walk: a conversation may end just after it asked for one


@dataclass(slots=True)
class Invalidation:
    """What was done.

    Attributes:
        deleted: keys that were removed by the time it was said; what a walk in the background finds is not in it.
        complete: whether Redis answered to the end.
    """

    deleted: int = 0
    complete: bool = False

    def count(self, removed: int) -> None:
        """So many more."""
        self.deleted += removed


class Invalidator:
    """Removes values everywhere they are kept: in Redis, in this process, and in loads under way."""

    def __init__(self, engine: Engine, filler: Filler) -> None:
        self._engine = engine
        self._filler = filler
        self._evicts = True
        self._policy_asked = -_POLICY_AGE
        self._index = UserIndex(engine)
        self._walk: asyncio.Task[None] | None = None

    @property
    def cut_off(self) -> bool:
        """Whether there is something to walk for, and nobody does."""
        return bool(self._engine.pending.strays) and not self._walking

    @property
    def _walking(self) -> bool:
        return self._walk is not None and not self._walk.done()

    async def delete(self, names: Sequence[str]) -> int:
        """Remove keys. Raises TransportError."""
        self._forget(names)
        guards = [guard for name in names for guard in (keys.lease(name), keys.stale(name))]
        removed = await self._engine.unlink(names, before=guards)
        self._forget(names)
        return removed

    async def invalidate(self, pattern: str, user_id: str | None) -> Invalidation:
        """See :meth:`cache.RedisCache.invalidate`. What could not be done is owed."""
        outcome = Invalidation()
        try:
            if self._engine.enabled:
                await self._reach(pattern, user_id, outcome)
        except TransportError as problem:
            self._engine.count_error(problem)
        finally:  # also for who is cut off: nobody knows how far it got
            if not outcome.complete:
                self._engine.owe(PendingInvalidations(patterns=((pattern, user_id),)))
        return outcome

    def take_over(self, debts: PendingInvalidations) -> None:
        """Obey, and deliver, what another cache of this process could not tell Redis."""
        if debts.patterns:
            self._forget_all()
        self._forget(debts.keys)
        self._engine.pending.take_over(debts)
        self._engine.settle_soon()

    async def everywhere(self, pattern: str, outcome: Invalidation) -> None:
        """Remove what ``pattern`` reaches, of all users. Raises TransportError; ``outcome`` counts what went."""
        self._forget_all()
        await sweep(self._engine, pattern, spares_reserved(pattern), outcome.count)
        self._forget_all()
        outcome.complete = True

    async def of_user(self, user_id: str, pattern: str, outcome: Invalidation) -> None:
        """Remove what ``pattern`` reaches of one user's keys. Raises TransportError; ``outcome`` counts what went."""
        self._forget_all()
        # Two commands in one tick. Not send_all: on a cluster the first goes to every node.
        size, names = await asyncio.gather(self._engine.send("DBSIZE"), self._index.names(user_id))
        if names is None:
            await self._index.renew(user_id, await self._sweep(user_id, pattern, outcome))
        elif int(size) <= SMALL or await self._server_evicts():
            await self._sweep(user_id, pattern, outcome)
        else:
            mine = [keys.user_prefix(user_id) + name for name in names]
            outcome.count(await self.delete([key for key in mine if matches(pattern, key)]))
            self._engine.pending.hide(pattern, user_id, names)
            self._walk_on()
        self._forget_all()
        outcome.complete = True

    async def clear(self) -> None:
        """Remove every value of every user. Raises TransportError."""
        await self.everywhere(f"{keys.USERS}*", Invalidation())

    async def settle(self) -> None:
        """Deliver what is owed, and take up a walk that was cut off. Raises TransportError."""
        self._walk_on()
        await Redelivery(self._engine.pending, self.delete, self._again).make()

    async def close(self) -> None:
        """Let a walk end, but not for long. What it has not found by then stays hidden, and owed."""
        if self._walk is not None:
            await asyncio.wait({self._walk}, timeout=_LAST_WALK)
            self._walk.cancel()
            await asyncio.wait({self._walk})

    async def _again(self, pattern: str, user_id: str | None) -> int:
        outcome = Invalidation()
        await self._reach(pattern, user_id, outcome)
        return outcome.deleted

    async def _reach(self, pattern: str, user_id: str | None, outcome: Invalidation) -> None:
        if user_id is None:
            await self.everywhere(pattern, outcome)
        else:
            await self.of_user(user_id, pattern, outcome)

    async def _sweep(self, user_id: str, pattern: str, outcome: Invalidation) -> set[str]:
        """Remove what ``pattern`` reaches of one user's keys. The names of the rest. Raises TransportError."""
        spared: set[str] = set()
        prefix = keys.user_prefix(user_id)

        def wanted(key: str) -> bool:
            if reaches(pattern, user_id, key):
                return True
            spared.add(key.removeprefix(prefix))
            return False

        await sweep(self._engine, keys.user_pattern(user_id), wanted, outcome.count)
        return spared

    async def _server_evicts(self) -> bool:
        """Whether the server may evict an index. Believed of one that does not say."""
        now = time.monotonic()
        if now - self._policy_asked >= _POLICY_AGE:
            try:
                info = await self._engine.send("INFO", "memory")
            except CommandRejected:  # who may not ask walks
                info = None
            self._policy_asked = now
            self._evicts = not _keeps_everything(info)
        return self._evicts

    def _walk_on(self) -> None:
        """Begin a walk if there is something to walk for, and nobody does."""
        if self.cut_off and self._engine.connected and not self._engine.closed:
            self._walk = asyncio.create_task(self._walk_for_strays(), name="cache-walk")

    async def _walk_for_strays(self) -> None:
        """Remove the keys of the waiting users that no index knows. What this layer wrote meanwhile stays."""
        strays = self._engine.pending.strays
        while waiting := strays.waiting():
            try:
                # What guards them too: a last good value may outlive both its value and the index.
                async for page in pages(self._engine, "*user:*", size=_STEP):
                    await self._remove_strays({guarded(key) or key for key in page}, waiting)
            except TransportError:
                return  # they stay hidden until it is taken up again
            strays.gone(waiting)

    async def _remove_strays(self, page: Iterable[str], users: Waiting) -> None:
        strays = []
        for key in page:
            owned = keys.owner(key)
            if owned is None or owned[0] not in users or owned[1] in keys.FAMILIES:
                continue
            if not any(matches(pattern, key) for pattern in users[owned[0]]):
                continue
            if not await self._engine.send(
                "SISMEMBER", keys.index(owned[0]), owned[1].encode(errors="surrogateescape")
            ):
                strays.append(key)
        if strays:
            guards = [guard for key in strays for guard in (keys.lease(key), keys.stale(key))]
            await remove(self._engine, [*guards, *strays])
            self._forget(strays)

    def _forget(self, names: Sequence[str]) -> None:
        self._engine.near.drop_many(names)
        self._filler.detach(names)

    def _forget_all(self) -> None:
        self._engine.near.drop_all()
        self._filler.detach_all()


def _keeps_everything(info: Any) -> bool:
    """Whether the memory section of INFO, as text or as redis-py's dict, says that nothing is ever evicted."""
    if not isinstance(info, dict):
        text = info.decode() if isinstance(info, bytes) else str(info)
        info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    policy = info.get("maxmemory_policy")
    return policy == "noeviction" or (policy is not None and str(info.get("maxmemory")) == "0")
