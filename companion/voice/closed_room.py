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
_CLOSED: Final = "room session transport is closed"
_MAX_REASON: Final = 200  # characters


class ClosedRoomFilter(logging.Filter):
    """Withholds what LiveKit logs of events that it cannot send because the room has closed."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See :class:`logging.Filter`."""
        problem = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        return not (isinstance(problem, RuntimeError) and problem.args == (_CLOSED,))


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
