"""``index:{user_id}``: the names of one user's keys outside the families, so that they are found without a scan.

Every write adds its name first. Nothing removes the name of a key that has expired, so an index that has grown large,
or that is no set at all, is not used: the keyspace is scanned instead, and the index rebuilt from what it knew and
still exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from .. import keys
from ..exceptions import CommandRejected
from ..transport.commands import Transport

INDEX_TTL: Final = 7 * 86_400
"""Seconds an index lives after its last write. Keys that outlive it are found by a scan."""
MAX_NAMES: Final = 5_000
"""Names that are read. Their keys, and what guards those, are deleted in one step within the deadline."""
_BATCH: Final = 500


def index_entry(key: str) -> tuple[tuple[Any, ...], ...]:
    """The commands to send before ``key`` or its lease is written, so that its user's index has its name."""
    owned = keys.owner(key)
    if owned is None or owned[1] in keys.FAMILIES:
        return ()
    return _entry(owned[0], owned[1])


class UserIndex:
    """Reads and rebuilds the users' indexes.

    Args:
        transport: sends the commands.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def names(self, user_id: str) -> set[str] | None:
        """Return the names in the index and those of the families, or None if the keyspace has to be scanned.

        Raises:
            TransportError: no usable reply within the deadline.
        """
        try:  # not SMEMBERS: a reply that is too large costs the connection
            members = await self._transport.send("SRANDMEMBER", keys.index(user_id), MAX_NAMES + 1)
        except CommandRejected as problem:
            if problem.code != "WRONGTYPE":
                raise
            return None
        if len(members) > MAX_NAMES:
            return None
        return {member.decode(errors="replace") for member in members} | set(keys.FAMILIES)

    async def rebuild(self, user_id: str, existing: Iterable[str]) -> None:
        """Remove from the index all names but those in ``existing``.

        A name that is not in the index is not added: others wrote that key, and a scan spares what the index knows.
        What is written meanwhile may be missing afterwards, and is found by the next scan.

        Raises:
            TransportError: no usable reply within the deadline.
        """
        index, known = keys.index(user_id), []
        for names in _batches([name.encode(errors="surrogateescape") for name in existing]):
            members = await self._transport.send_each(*(("SISMEMBER", index, name) for name in names))
            known += [name for name, member in zip(names, members, strict=True) if member == 1]
        await self._transport.unlink((index,))
        for names in _batches(known):
            await self._transport.send_all(*_entry(user_id, *names))


def _batches(names: list[bytes]) -> Iterator[list[bytes]]:
    return (names[start : start + _BATCH] for start in range(0, len(names), _BATCH))


def _entry(user_id: str, *names: str | bytes) -> tuple[tuple[Any, ...], ...]:
    index = keys.index(user_id)
    return ("SADD", index, *names), ("EXPIRE", index, INDEX_TTL)
