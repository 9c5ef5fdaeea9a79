"""What the companion knows before its first word: the profile and how to greet, fetched together, early.

Fetching begins at the top of the entrypoint, before the room is connected, so that it costs nothing on the way
to the first word. It never fails and never takes longer than its deadline: what is not known by then is left
out, and the companion talks all the same.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, TypeVar

from .continuity import DEADLINE as CONTINUITY_DEADLINE
from .greeting import FIRST_MEETING, get_intelligent_first_message_instructions
from .identity import Caller, use_caller
from .persona import GREETING
from .profile import get_user_profile_async

logger = logging.getLogger("companion")
DEADLINE: Final = CONTINUITY_DEADLINE + 1.0
"""Seconds from the start of fetching after which the companion talks without what is still missing."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Briefing:
    """What is known.

    Attributes:
        profile: the caller's profile; empty when nothing is known.
        greeting: the instructions for the first message.
    """

    profile: str = ""
    greeting: str = FIRST_MEETING.instructions(GREETING)


class BriefingOrder:
    """A briefing that is being fetched for ``caller`` from the moment this is made."""

    def __init__(self, caller: Caller | None) -> None:
        self._ends = asyncio.get_running_loop().time() + DEADLINE
        self._profile: asyncio.Task[str] | None = None
        self._greeting: asyncio.Task[str] | None = None
        if caller is not None:
            with use_caller(caller):
                self._profile = asyncio.create_task(get_user_profile_async(), name="briefing-profile")
                self._greeting = asyncio.create_task(
                    get_intelligent_first_message_instructions(caller.user_id, GREETING), name="briefing-greeting"
                )

    async def ready(self) -> Briefing:
        """The briefing, as complete as it is by its deadline."""
        pending = {task for task in (self._profile, self._greeting) if task is not None}
        if pending:
            await asyncio.wait(pending, timeout=max(0.0, self._ends - asyncio.get_running_loop().time()))
        blank = Briefing()
        return Briefing(
            profile=_outcome(self._profile, blank.profile, "profile"),
            greeting=_outcome(self._greeting, blank.greeting, "greeting"),
        )


def _outcome(task: asyncio.Task[T] | None, otherwise: T, what: str) -> T:
    if task is None:
        return otherwise
    if not task.done():
        task.cancel()
        logger.warning("the %s was not ready in time: going on without it", what)
        return otherwise
    if task.cancelled() or (problem := task.exception()) is not None:
        reason = "cancelled" if task.cancelled() else type(problem).__name__
        logger.warning("the %s could not be fetched (%s): going on without it", what, reason)
        return otherwise
    return task.result()
