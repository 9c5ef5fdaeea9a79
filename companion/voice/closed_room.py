"""What a room that has closed leaves in the log: one line, and no traceback.

A room may close while the agent connects, or before anybody comes. LiveKit raises in the one case, and logs a
traceback for each event that it can send no more in the other.
"""

from __future__ import annotations

import logging
from typing import Final

from livekit import rtc
from livekit.agents import JobContext

logger = logging.getLogger("companion")
_UNSENT: Final = "failed to send session event"
_CLOSED: Final = "room session transport is closed"
_MAX_REASON: Final = 200  # characters


class ClosedRoomFilter(logging.Filter):
    """Withholds what LiveKit logs of events that it cannot send to a closed room; of other events it keeps the line.

    While a room closes, sending fails with other words.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """See :class:`logging.Filter`."""
        if record.msg != _UNSENT or not isinstance(record.exc_info, tuple):
            return True
        problem = str(record.exc_info[1])
        record.msg, record.args = f"{_UNSENT}: %s", (problem[:_MAX_REASON],)
        record.exc_info = record.exc_text = None
        return problem != _CLOSED


def quiet_closed_rooms() -> None:
    """Add the filter to the framework's logger, once."""
    framework = logging.getLogger("livekit.agents")
    if not any(isinstance(one, ClosedRoomFilter) for one in framework.filters):
        framework.addFilter(ClosedRoomFilter())


async def connect(ctx: JobContext) -> bool:
    """Connect a job to its room.

    Returns:
        Whether it is connected. If not, the room has closed, or the server cannot be reached: the job ends.
    """
    try:
        await ctx.connect()
    except rtc.ConnectError as problem:
        logger.warning("the room cannot be joined, and the job ends: %s", str(problem)[:_MAX_REASON])
        ctx.shutdown("the room cannot be joined")
        return False
    return True
