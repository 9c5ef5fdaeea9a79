"""Redelivers pending invalidations; rejected ones stay queued and do not hold up the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ..coherence.pending import PendingQueue
from ..coherence.pending_pattern import PendingPattern
from ..exceptions import CommandRejected

DeleteKeys = Callable[[Sequence[str]], Awaitable[int]]
"""Deletes keys. Raises TransportError."""
DeleteByName = Callable[[PendingPattern, int], Awaitable[None]]
"""Deletes what is known by name of what a user's pattern, with this sequence number, reaches. Raises TransportError."""
_BATCH: Final = 500
SPECIFIC: Final = frozenset(("NOPERM", "WRONGTYPE", "ERR", "CROSSSLOT"))
"""Error codes that concern one command. With the others (READONLY, LOADING, OOM, ...) the rest would fail too."""
_MAX_REJECTIONS: Final = 16  # in one round; the next round begins with what this one did not attempt


class Redelivery:
    """One round of redelivery.

    Args:
        pending: the queue.
        delete_keys: delivers keys.
        delete_by_name: delivers the pattern of one user, as far as that needs no scan.
    """

    def __init__(self, pending: PendingQueue, delete_keys: DeleteKeys, delete_by_name: DeleteByName) -> None:
        self._pending = pending
        self._delete_keys = delete_keys
        self._delete_by_name = delete_by_name
        self._rejections: list[CommandRejected] = []

    async def run(self) -> None:
        """Attempt everything that is queued and needs no scan.

        Raises:
            TransportError: what was not acknowledged stays queued. A rejection is raised after all other attempts.
        """
        keys, patterns = self._pending.invalidations
        for start in range(0, len(keys), _BATCH):
            await self._deliver_keys(keys[start : start + _BATCH])
        for entry in patterns:
            sequence = self._pending.sequence_of(entry)
            if sequence and entry.user_id is not None and len(self._rejections) < _MAX_REJECTIONS:
                try:
                    await self._delete_by_name(entry, sequence)
                except CommandRejected as problem:
                    if problem.code not in SPECIFIC:
                        raise
                    self._rejections.append(problem)
                    self._pending.requeue(entry)
        if self._rejections:
            raise self._rejections[0]

    async def _deliver_keys(self, keys: Sequence[str]) -> None:
        """Deliver a batch. A rejected batch is halved until the keys that cause the rejection are found."""
        batch = {key: sequence for key in keys if (sequence := self._pending.sequence_of(key))}
        if not batch or len(self._rejections) >= _MAX_REJECTIONS:
            return
        try:
            await self._delete_keys(list(batch))
        except CommandRejected as problem:
            if problem.code not in SPECIFIC:
                raise
            if len(keys) == 1:
                self._rejections.append(problem)
                self._pending.requeue(keys[0])
                return
            half = len(keys) // 2
            await self._deliver_keys(keys[:half])
            await self._deliver_keys(keys[half:])
        else:
            for key, sequence in batch.items():
                self._pending.acknowledge(key, sequence)
