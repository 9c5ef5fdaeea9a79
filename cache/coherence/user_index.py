"""``index:{user_id}``: the names of one user's keys outside the families, so that they are found without a scan.

Every write adds its name first, and a deletion by name removes it. Nothing removes the name of a key that has expired,
and Redis may evict an index: keys that it does not name are found by a scan in the background.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any, Final

from .. import keys
from ..exceptions import CommandRejected, TransportError
from ..transport.commands import Transport

INDEX_TTL: Final = 7 * 86_400
"""Seconds an index lives after its last write. Keys that outlive it are found by a scan."""
MAX_NAMES: Final = 5_000
"""Names that are read. Their keys, and what guards those, are deleted in one step within the deadline."""


def index_entry(key: str) -> tuple[tuple[Any, ...], ...]:
    """The commands to send before ``key`` or its lease is written, so that its user's index has its name."""
    owned = keys.owner(key)
    if owned is None or owned[1] in keys.FAMILIES:
        return ()
    index = keys.index(owned[0])
    return ("SADD", index, owned[1]), ("EXPIRE", index, INDEX_TTL)


async def names_of(transport: Transport, user_id: str) -> set[str]:
    """The names in a user's index, at most ``MAX_NAMES``. An index that is no set is deleted.

    Raises:
        TransportError: Redis gave no usable reply.
    """
    try:  # not SMEMBERS: a reply that is too large costs the connection
        members = await transport.send("SRANDMEMBER", keys.index(user_id), MAX_NAMES)
    except CommandRejected as problem:
        if problem.code != "WRONGTYPE":
            raise
        await transport.unlink((keys.index(user_id),))
        return set()
    return {member.decode(errors="replace") for member in members}


async def remove_names(transport: Transport, user_id: str, names: Collection[str]) -> None:
    """Remove the names of keys that are being deleted. Send it in the same loop iteration, before the deletion.

    Then no key is written in between, which would exist without its name. A name that stays costs only memory.
    In a cluster, whose nodes act independently, a key that is written in that very moment may: until a scan finds it.
    """
    if names:
        with suppress(TransportError):
            await transport.send("SREM", keys.index(user_id), *names)
