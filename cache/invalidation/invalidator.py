"""Deletes cached values: by key, by pattern, by user.

A key's lease is deleted before the key, so a loader that began before the invalidation can no longer fill. What Redis
does not acknowledge becomes a pending invalidation (``coherence.pending``).

One user's keys are found without a scan, whatever the size of the keyspace and the eviction policy: the families that
every user has are known by name, and an index has the names of the rest (``coherence.user_index``). What neither knows
(other programs wrote it, or Redis evicted the index) is masked in this process from the moment the call returns, until
a scan in the background has deleted it. In a small keyspace a scan costs no more than reading the index, and is made
before the call returns. A pattern that may reach several users' keys is a scan, and the call waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from .. import keys
from ..coherence.glob import matches
from ..coherence.pending_pattern import PendingInvalidations, PendingPattern, only_user
from ..coherence.user_index import names_of, remove_names
from ..core.engine import Engine
from ..exceptions import CommandRejected, TransportError
from ..loading.fill import Filler
from .background_scan import BackgroundScan
from .ownership import ours
from .scan import SPECIFIC, delete, delete_but_rejected, delete_matching, guards_of

SMALL: Final = 2_000
"""Keys up to which a scan costs no more than reading the index."""
_BATCH: Final = 100  # pending keys that are delivered together
_MAX_FAILURES: Final = 16  # of patterns in one round; the next round begins with what this one did not attempt


@dataclass(slots=True)
class Invalidation:
    """The outcome of an invalidation.

    Attributes:
        deleted: keys that were deleted by the time the call returned; a background scan may delete more.
        complete: whether Redis acknowledged all of it.
    """

    deleted: int = 0
    complete: bool = False


class Invalidator:
    """Deletes values everywhere they are kept: in Redis, in this process, and in loads under way.

    Attributes:
        background_scan: delivers what needs a scan.
    """

    def __init__(self, engine: Engine, filler: Filler) -> None:
        self._engine = engine
        self._transport = engine.transport
        self._pending = engine.pending
        self._filler = filler
        self.background_scan = BackgroundScan(engine, self._drop)

    # -- pending invalidations -------------------------------------------------------------------------

    @property
    def undelivered(self) -> bool:
        """Whether an invalidation waits for Redis to acknowledge it; not what a scan under way finds beside names."""
        return self._pending.undelivered

    def undelivered_for(self, *user_ids: str) -> set[str]:
        """Those of these users whose keys an undelivered invalidation may include."""
        return self._pending.undelivered_for(user_ids)

    @property
    def pending(self) -> PendingInvalidations:
        """What Redis has not acknowledged."""
        return self._pending.invalidations

    # -- operations ------------------------------------------------------------------------------------

    async def delete(self, names: Sequence[str]) -> int:
        """Delete keys. Returns how many existed.

        Raises:
            TransportError: Redis gave no usable reply.
        """
        self._drop(names)
        deleted = await self._transport.unlink(names, before=guards_of(names))
        self._pending.delivered.note(*names)
        self._drop(names)
        return deleted

    async def invalidate(self, glob: str, user_id: str | None, *, own: bool = False) -> Invalidation:
        """Delete what a pattern reaches, for one user or for all. What cannot be completed becomes pending.

        Args:
            glob: the pattern.
            user_id: the user whose keys it is limited to.
            own: delete only keys that this layer wrote: of one user those known by name, of all users those that a scan
                in the background finds.
        """
        outcome = Invalidation()
        pattern = PendingPattern(glob, user_id or only_user(glob), own)
        try:
            if self._transport.enabled and (pattern.user_id is not None or not own):
                await self._delete_matching(pattern, outcome)
        except TransportError as problem:
            self._engine.count_error(problem)
        finally:  # also if the caller is cancelled: how far it got is unknown
            if not outcome.complete:
                self._pending.add_pattern(*pattern)
        return outcome

    async def redeliver(self) -> None:
        """Deliver what is pending, and repeat an interrupted scan. What is not acknowledged stays pending.

        What Redis rejects holds up nothing else, and a node of a cluster that is away nothing of the others.

        Raises:
            TransportError: Redis gave no usable reply.
        """
        names, patterns = self._pending.invalidations
        try:
            for of_node in self._transport.by_node(names):
                try:
                    await self._redeliver_keys(of_node)
                except TransportError as problem:
                    self._check_of_one(problem)
            await self._redeliver_patterns(patterns)
        finally:
            self.background_scan.start()

    async def close(self) -> None:
        """Let a background scan end, within ``background_scan.ON_CLOSE``. The rest stays masked and pending."""
        await self.background_scan.close()

    async def _delete_matching(self, pattern: PendingPattern, outcome: Invalidation) -> None:
        self._drop_all()
        if pattern.user_id is None:
            await self._scan(pattern.glob, lambda key: not pattern.spares(key), outcome)
        elif pattern.own or pattern.literal:
            await self._delete_by_name(pattern, await names_of(self._transport, pattern.user_id), outcome)
        else:
            sizes, names = await asyncio.gather(  # in one round trip
                self._transport.on_each_node("DBSIZE"), names_of(self._transport, pattern.user_id)
            )
            if sum(map(int, sizes)) <= SMALL:
                await self._scan(keys.user_pattern(pattern.user_id), pattern.reaches, outcome)
            else:
                known = await self._delete_by_name(pattern, names, outcome)
                self._pending.add_pattern(*pattern)  # only now: a redelivery beside it would delete, and not count
                self._pending.deleted_by_name(pattern, self._pending.sequence_of(pattern), known)
                self.background_scan.start()
        self._drop_all()
        self._pending.delivered.note(pattern)
        outcome.complete = True

    async def _redeliver_keys(self, names: Sequence[str]) -> None:
        for start in range(0, len(names), _BATCH):
            batch = {key: last for key in names[start : start + _BATCH] if (last := self._pending.sequence_of(key))}
            rejected = await delete_but_rejected(self._transport, [*guards_of(batch), *batch])
            self._drop(batch)
            for key, sequence in batch.items():
                if rejected.isdisjoint((key, *guards_of((key,)))):
                    self._pending.acknowledge(key, sequence)
                else:
                    self._pending.requeue(key)
            if rejected:
                return  # the next round begins with the others

    async def _redeliver_patterns(self, patterns: Sequence[PendingPattern]) -> None:
        failures = 0
        for pattern in patterns:
            sequence = self._pending.sequence_of(pattern)
            if sequence and pattern.user_id is not None and failures < _MAX_FAILURES:
                try:
                    names = await names_of(self._transport, pattern.user_id)
                    known = await self._delete_by_name(pattern, names, Invalidation())
                except TransportError as problem:
                    self._check_of_one(problem)
                    failures += 1
                    self._pending.requeue(pattern)
                    continue
                if pattern.own or pattern.literal:
                    self._pending.acknowledge(pattern, sequence)
                else:
                    self._pending.deleted_by_name(pattern, sequence, known)

    def _check_of_one(self, problem: TransportError) -> None:
        """Raise what everything else would fail with too: not what concerns one command, or one node of a cluster."""
        specific = isinstance(problem, CommandRejected) and problem.code in SPECIFIC
        client = self._transport.client
        of_a_node = client is not None and client.up and not client.only
        if not (specific or of_a_node):
            raise problem

    async def _delete_by_name(self, pattern: PendingPattern, names: set[str], outcome: Invalidation) -> set[str]:
        """Delete what ``pattern`` reaches of one user's families and of these names. Returns the keys."""
        assert pattern.user_id is not None
        prefix = keys.user_prefix(pattern.user_id)
        reached = {name for name in names.union(keys.FAMILIES) if matches(pattern.glob, prefix + name)}
        known = {prefix + name for name in reached}
        if pattern.own:  # another application may have a key of a family's name; what the index names this layer wrote
            families = known - {prefix + name for name in names}
            known -= families - set(await ours(self._transport, self._engine.serializer, list(families)))
        elif pattern.literal and pattern.reaches(pattern.glob):
            known.add(pattern.glob)
        removing = remove_names(self._transport, pattern.user_id, reached & names)
        _, deleted = await asyncio.gather(removing, self.delete(list(known)))
        outcome.deleted += deleted
        return known

    async def _scan(self, glob: str, wanted: Callable[[str], bool], outcome: Invalidation) -> None:
        async def select(names: list[str], _: bool) -> list[str]:
            return [name for name in names if wanted(name)]

        async def remove(names: list[str], found: bool) -> None:
            deleted = await delete(self._transport, names)
            outcome.deleted += deleted if found else 0

        await delete_matching(self._transport, glob, select, remove)

    # -- in this process -------------------------------------------------------------------------------

    def _drop(self, names: Collection[str]) -> None:
        self._engine.near.drop_many(names)
        self._filler.detach(names)

    def _drop_all(self) -> None:
        self._engine.near.drop_all()
        self._filler.loads.detach_all()
