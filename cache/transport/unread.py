"""Values that nobody can read: so large that a connection is given up over them.

Whoever asks for one stops everybody else's replies, and what is asked for once is asked for again. So it is removed:
at once where the reply was seen to be too large, and where nothing was seen at all, since a server that copies half a
gigabyte is silent meanwhile, once the length of what was asked for has been looked at over the next connection. Of all
that was asked for: Redis carries out what arrives together before it writes the first reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import hiredis

from .connection import SILENT, TOO_LARGE
from .multiplexer import MultiplexedClient

_SUSPECTS: Final = 100  # keys that are looked at over the next connection, at most


class OversizedReplies:
    """What became of the replies that connections were lost over.

    Args:
        largest: bytes a reply may have.
        remove: called with each key whose value is larger.
    """

    def __init__(self, largest: int, remove: Callable[[str], None]) -> None:
        self.largest = largest
        self._remove = remove
        self._suspects: list[str] = []

    def lost(self, reason: str, commands: Sequence[bytes]) -> None:
        """A connection was lost for this reason while ``commands``, packed, were still to be answered in this order."""
        if reason == TOO_LARGE:
            for key in _asked_for(commands[0]):
                self._remove(key)
        elif reason == SILENT:
            suspects: dict[str, None] = {}
            for command in commands:
                suspects |= dict.fromkeys(_asked_for(command))
                if len(suspects) >= _SUSPECTS:
                    break
            self._suspects = list(suspects)[:_SUSPECTS]

    async def look(self, lane: MultiplexedClient) -> None:
        """Look at what the last connection may have been lost over. Who may not look (NOPERM) leaves it."""
        suspects, self._suspects = self._suspects, []
        if not suspects:
            return
        lengths = lane.call_many([("STRLEN", key.encode(errors="surrogateescape")) for key in suspects])
        for key, length in zip(suspects, await asyncio.gather(*lengths, return_exceptions=True), strict=True):
            if isinstance(length, int) and length > self.largest:
                self._remove(key)


def _asked_for(command: bytes) -> list[str]:
    """The keys whose values a command of ours brings."""
    reader = hiredis.Reader()
    reader.feed(command)
    name, *arguments = reader.gets()
    asked = arguments if name == b"GET" else []
    if name == b"EVALSHA":
        asked = arguments[2 : 2 + int(arguments[1])]
    return [key.decode(errors="surrogateescape") for key in asked]
