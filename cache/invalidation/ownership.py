"""Which keys this layer wrote, in a Redis that other applications use too.

A key is ours if it has the exact shape of a documented key of a user, or the user's index has its name, and if it holds
a string that reads as one of our values. Whatever this layer deletes of its own accord (after a restart, a restore, a
flush, a failover, an eviction, or when too much is pending) passes this test; explicit calls delete what they name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .. import keys
from ..exceptions import rejected_with
from ..serialization.serializer import Serializer
from ..transport.commands import Transport
from .scan import retried

_START_BYTES: Final = 2048  # of a value that are read: most values are shorter
_BATCH: Final = 100


class Ownership:
    """Tells our keys from those of others.

    Args:
        transport: sends the commands.
        serializer: knows our values.
    """

    def __init__(self, transport: Transport, serializer: Serializer) -> None:
        self._transport = transport
        self._serializer = serializer

    async def ours(self, names: Sequence[str]) -> list[str]:
        """Those of these keys that this layer wrote.

        Raises:
            TransportError: no usable reply within the deadline.
        """
        found: list[str] = []
        for first in range(0, len(names), _BATCH):
            batch = names[first : first + _BATCH]
            indexed = await self._indexed([name for name in batch if not keys.is_documented(name)])
            found += await self._values([name for name in batch if keys.is_documented(name) or name in indexed])
        return found

    async def _indexed(self, names: Sequence[str]) -> set[str]:
        entries = [(name, owned) for name in names if (owned := keys.owner(name)) is not None]
        asked = [("SISMEMBER", _bytes(keys.index(user)), _bytes(rest)) for _, (user, rest) in entries]
        return {name for (name, _), member in zip(entries, await self._ask(asked), strict=True) if member == 1}

    async def _values(self, names: Sequence[str]) -> list[str]:
        starts = await self._ask([("GETRANGE", _bytes(name), 0, _START_BYTES - 1) for name in names])
        return [
            name
            for name, start in zip(names, starts, strict=True)
            if isinstance(start, bytes) and self._serializer.may_be_value(start, whole=len(start) < _START_BYTES)
        ]

    async def _ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies; an error in place of one that concerns a key of another type."""

        async def ask() -> list[Any]:
            replies = await self._transport.send_each(*commands)
            for reply in replies:
                if isinstance(reply, Exception) and not rejected_with(reply, "WRONGTYPE"):
                    raise reply
            return replies

        return await retried(self._transport, ask(), ask) if commands else []


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")
