"""``index:{user_id}``: the names of one user's keys beside the families, so that they are found without a walk.

Every write adds its name first. Nothing takes a name out that has expired, so a set that has grown large, and a key
that is no set at all, is not asked: the keyspace is walked instead, and the set made anew of what it knew and is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from .. import keys
from ..exceptions import CommandRejected

if TYPE_CHECKING:
    from ..core.engine import Engine

INDEX_TTL: Final = 7 * 86_400
"""Seconds an index lives after its last write. Keys that outlive it are left to the walk."""
MOST: Final = 5_000
"""Names that are asked for. Their keys, and what guards those, go in one step within the deadline."""
_BATCH: Final = 500


def index_entry(key: str) -> tuple[tuple[Any, ...], ...]:
    """The commands to send before ``key`` or its lease is written, so that its user's index knows it."""
    owned = keys.owner(key)
    if owned is None or owned[1] in keys.FAMILIES:
        return ()
    return _entry(owned[0], owned[1])


class UserIndex:
    """Asks the indexes of all users.

    Args:
        engine: sends the commands.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def names(self, user_id: str) -> set[str] | None:
        """What the index knows, the families included; None where the keyspace is to be walked."""
        try:  # not SMEMBERS: a reply that is too large costs the connection
            members = await self._engine.send("SRANDMEMBER", keys.index(user_id), MOST + 1)
        except CommandRejected as problem:
            if problem.code != "WRONGTYPE":
                raise
            return None
        if len(members) > MOST:
            return None
        return {member.decode(errors="replace") for member in members} | set(keys.FAMILIES)

    async def renew(self, user_id: str, there: Iterable[str]) -> None:
        """Take out of it what has expired: all but the names that are ``there``.

        What others wrote by hand is there too, and is not taken in: a walk takes what is in the index for this layer's
        own. What is written meanwhile may be left out, and is found by the next walk. Raises TransportError.
        """
        index, known = keys.index(user_id), []
        for names in _batches([name.encode(errors="surrogateescape") for name in there]):
            members = await self._engine.send_each(*(("SISMEMBER", index, name) for name in names))
            known += [name for name, member in zip(names, members, strict=True) if member == 1]
        await self._engine.unlink((index,))
        for names in _batches(known):
            await self._engine.send_all(*_entry(user_id, *names))


def _batches(names: list[bytes]) -> Iterator[list[bytes]]:
    return (names[start : start + _BATCH] for start in range(0, len(names), _BATCH))


def _entry(user_id: str, *names: str | bytes) -> tuple[tuple[Any, ...], ...]:
    index = keys.index(user_id)
    return ("SADD", index, *names), ("EXPIRE", index, INDEX_TTL)
