"""Which keys this layer wrote, in a Redis that other applications use too.

A key is ours if it has the exact shape of a documented key of a user, or the user's index has its name, and if it holds
a string that reads as one of our values. Whatever this layer deletes of its own accord (after a restart, a restore, a
flush, a failover, an eviction, or when too much is pending) passes this test; explicit calls delete what they name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .. import keys
from ..serialization.serializer import Serializer
from ..transport.commands import Transport
from .scan import as_bytes, ask_each

_START_BYTES: Final = 2048  # of a value that are read: most values are shorter
_BATCH: Final = 100


async def ours(transport: Transport, serializer: Serializer, names: Sequence[str]) -> list[str]:
    """Those of these keys that this layer wrote.

    Raises:
        TransportError: Redis gave no usable reply.
    """
    found: list[str] = []
    for first in range(0, len(names), _BATCH):
        batch = names[first : first + _BATCH]
        indexed = await _indexed(transport, [name for name in batch if not keys.is_documented(name)])
        named = [name for name in batch if keys.is_documented(name) or name in indexed]
        asked = [("GETRANGE", as_bytes(name), 0, _START_BYTES - 1) for name in named]
        for name, start in zip(named, await ask_each(transport, asked, "WRONGTYPE"), strict=True):
            if isinstance(start, bytes) and serializer.may_be_value(start, whole=len(start) < _START_BYTES):
                found.append(name)
    return found


async def _indexed(transport: Transport, names: Sequence[str]) -> set[str]:
    entries = [(name, owned) for name in names if (owned := keys.owner(name)) is not None]
    asked = [("SISMEMBER", as_bytes(keys.index(user)), as_bytes(rest)) for _, (user, rest) in entries]
    replies = await ask_each(transport, asked, "WRONGTYPE")
    return {name for (name, _), member in zip(entries, replies, strict=True) if member == 1}
