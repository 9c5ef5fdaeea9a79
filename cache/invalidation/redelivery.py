"""Telling Redis what it is owed. What it refuses stays owed, and holds up nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ..coherence.pending import PendingQueue
from ..exceptions import CommandRejected

Remove = Callable[[Sequence[str]], Awaitable[int]]
"""Removes keys. Raises TransportError."""
Sweep = Callable[[str, str | None], Awaitable[int]]
"""Removes what a pattern reaches, for one user or for all. Raises TransportError."""
_BATCH: Final = 500
_OF_ONE: Final = frozenset(("NOPERM", "WRONGTYPE", "ERR", "CROSSSLOT"))
"""Codes that are about what was asked for. The others (READONLY, LOADING, OOM, ...) would refuse the rest too."""
_MOST: Final = 16  # refusals of one round: what is left is tried in the next, before those


class Redelivery:
    """One round.

    Args:
        pending: what is owed.
        remove: tells of keys.
        sweep: tells of patterns.
    """

    def __init__(self, pending: PendingQueue, remove: Remove, sweep: Sweep) -> None:
        self._pending = pending
        self._remove = remove
        self._sweep = sweep
        self._refusals: list[CommandRejected] = []

    async def make(self) -> None:
        """All of it.

        Raises:
            TransportError: what was not delivered stays owed; a refusal is raised once everything has been tried.
        """
        keys, patterns = self._pending.debts
        for start in range(0, len(keys), _BATCH):
            await self._tell_keys(keys[start : start + _BATCH])
        for pattern, user_id in patterns:
            serial = self._pending.serial_of((pattern, user_id))
            if serial and len(self._refusals) < _MOST:
                try:
                    await self._sweep(pattern, user_id)
                except CommandRejected as problem:
                    if problem.code not in _OF_ONE:
                        raise
                    self._refusals.append(problem)
                    self._pending.put_off((pattern, user_id))
                else:
                    self._pending.paid((pattern, user_id), serial)
        if self._refusals:
            raise self._refusals[0]

    async def _tell_keys(self, keys: Sequence[str]) -> None:
        """Of keys that are refused together, each half is tried by itself, down to those that are meant."""
        batch = {key: serial for key in keys if (serial := self._pending.serial_of(key))}
        if not batch or len(self._refusals) >= _MOST:
            return
        try:
            await self._remove(list(batch))
        except CommandRejected as problem:
            if problem.code not in _OF_ONE:
                raise
            if len(keys) == 1:
                self._refusals.append(problem)
                self._pending.put_off(keys[0])
                return
            half = len(keys) // 2
            await self._tell_keys(keys[:half])
            await self._tell_keys(keys[half:])
        else:
            for key, serial in batch.items():
                self._pending.paid(key, serial)
