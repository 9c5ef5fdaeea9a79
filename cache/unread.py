"""Values that nobody can read: so large that a connection is given up over them.

Whoever asks for one stops everybody else's replies, and what is asked for once is asked for again. So it is removed:
at once where the reply was seen to be too large, and where nothing was seen at all, since a server that copies half a
gigabyte is silent meanwhile, once the length of what was asked for has been looked at over the next connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import hiredis

from .lane import Lane
from .wire import SILENT, TOO_LARGE


class Unread:
    """What became of the replies that connections were lost over.

    Args:
        largest: bytes a reply may have.
        remove: called with each key whose value is larger.
    """

    def __init__(self, largest: int, remove: Callable[[str], None]) -> None:
        self.largest = largest
        self._remove = remove
        self._suspects: list[str] = []

    def lost(self, reason: str, command: bytes) -> None:
        """A connection was lost for this reason while ``command``, packed, was the first to be answered."""
        if reason == TOO_LARGE:
            for key in _asked_for(command):
                self._remove(key)
        elif reason == SILENT:
            self._suspects = _asked_for(command)

    async def look(self, lane: Lane) -> None:
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
