"""What Redis acknowledged lately, and a failover may have lost without a sign.

Redis replicates after it has acknowledged. The old primary acknowledges until this process hears of the failover, a
second later perhaps; by then another process may have invalidated at the new one what had changed, and have left its
mark (``server_epoch``). So whatever the mark says, each process delivers again to another server what it has delivered
while that one was running already, as a replica perhaps. To a server that was only restarted that is nothing. In a
cluster the other server is the one that has the slots of a node which has none any more.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ..keys import USERS
from .pending_entries import MAX_KEYS
from .pending_pattern import PendingInvalidation, PendingPattern

LOSABLE: Final = 15.0
"""Seconds for which an old primary may acknowledge, at most: Sentinels make it a replica after ten."""
ROUNDED = 1.0
"""Seconds by which a server may say that it has been running for longer than it has."""
_ALL_USERS: Final = PendingPattern(f"{USERS}*", None, own=True)


class Delivered:
    """Keys of users that were deleted or replaced within ``LOSABLE``, and patterns; past a bound, all users' keys."""

    def __init__(self) -> None:
        self._at: OrderedDict[PendingInvalidation, float] = OrderedDict()  # when, oldest first

    def note(self, *entries: PendingInvalidation) -> None:
        """Redis has acknowledged these."""
        now, noted = time.monotonic(), self._at
        for entry in entries:
            if not isinstance(entry, str) or entry.startswith(USERS):
                noted[entry] = now
                noted.move_to_end(entry)
        while noted and next(iter(noted.values())) < now - LOSABLE:
            noted.popitem(last=False)
        if len(noted) > MAX_KEYS:
            noted.clear()
            noted[_ALL_USERS] = now

    def take(self, includes: Callable[[str], bool], uptime: float) -> list[PendingInvalidation]:
        """What has to be delivered again to a server that has these keys, and has been running for so many seconds."""
        self.note()
        began = time.monotonic() - uptime + ROUNDED
        concerned = [entry for entry in self._at if not isinstance(entry, str) or includes(entry)]
        return [entry for entry in concerned if self._at.pop(entry) > began]
