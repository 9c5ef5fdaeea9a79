"""What the companion knows before its first word: the profile and how to greet, fetched together, early.

Fetching begins at the top of the entrypoint, before the room is connected, so that it costs nothing on the way
to the first word. It never fails and never takes longer than its deadline: what is not known by then is left
out, and the companion talks all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from opentelemetry.trace import Span

from ..identity import Caller, use_caller
from ..memory.context import get_conversation_summary_async, get_user_state_async
from ..memory.profile import get_user_profile_async
from ..prompts import GREETING, earlier_conversations
from ..voice.tracing import StartTrace
from .follow_up import DEADLINE as CONTINUITY_DEADLINE
from .greeting import FIRST_MEETING, Plan, get_intelligent_first_message_instructions

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
        earlier: what was before this conversation; empty when nothing was.
    """

    profile: str = ""
    greeting: str = FIRST_MEETING.instructions(GREETING)
    earlier: str = ""


class BriefingOrder:
    """A briefing that is being fetched for ``caller`` from the moment this is made."""

    def __init__(self, caller: Caller | None, trace: StartTrace | None = None) -> None:
        self._ends = asyncio.get_running_loop().time() + DEADLINE
        self._trace = trace
        self._span: Span | None = None
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        if caller is not None:
            if trace is not None:
                trace.mark("lookup started")
                self._span = trace.begin("context")
            greeting = get_intelligent_first_message_instructions(caller.user_id, GREETING)
            with use_caller(caller):
                self._fetch("profile", get_user_profile_async())
                self._fetch("greeting", greeting)
                self._fetch("summary", get_conversation_summary_async())
                self._fetch("state", get_user_state_async())

    async def fetched(self) -> None:
        """Wait until all of it is there, or its deadline has passed."""
        if self._tasks:
            left = self._ends - asyncio.get_running_loop().time()
            await asyncio.wait(self._tasks.values(), timeout=max(0.0, left))

    async def ready(self) -> Briefing:
        """The briefing, as complete as it is by its deadline."""
        await self.fetched()
        blank = Briefing()
        profile, greeting = self._outcome("profile", blank.profile), self._outcome("greeting", blank.greeting)
        state: dict[str, Any] = self._outcome("state", {})
        earlier = earlier_conversations(
            self._outcome("summary", ""), state.get("conversations") or 0, state.get("stage") or ""
        )
        if earlier and greeting == blank.greeting:  # the turns could not be read: the rest says that we have met
            greeting = Plan("fresh_start").instructions(GREETING)
        return Briefing(profile, greeting, earlier)

    def _fetch(self, what: str, work: Coroutine[Any, Any, Any]) -> None:
        self._tasks[what] = asyncio.create_task(work, name=f"briefing-{what}")
        self._tasks[what].add_done_callback(self._one_done)

    def _one_done(self, _: asyncio.Task[Any]) -> None:
        if self._span is not None and self._trace is not None and all(task.done() for task in self._tasks.values()):
            span, self._span = self._span, None
            span.end()
            self._trace.mark("context ready")

    def _outcome(self, what: str, otherwise: T) -> T:
        task: asyncio.Task[T] | None = self._tasks.get(what)
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
