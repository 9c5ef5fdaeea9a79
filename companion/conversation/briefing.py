"""Prefetches what the companion knows of its caller before its first word: profile, greeting, summary and state.

The prefetch begins in ``attach``, before the room is connected, if the job names the caller, so that it adds nothing to
the time to the first word; else as soon as the participant is known. It never fails. What is read from the store has
one second, the model's judgement on a follow-up three more: the companion talks without what is still missing. A
profile that comes later is in the model's requests from the next one on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from opentelemetry.trace import Span

from cache import BackgroundTasks, retrieve_exception

from ..identity import Caller, language_code, use_caller
from ..memory.context import get_conversation_summary_async, get_user_state_async
from ..memory.profile import get_user_profile_async
from ..memory.read_deadline import sleep_unstalled
from ..prompts import earlier_conversations
from ..runtime import get_runtime
from ..voice.tracing import StartTrace
from .opening.follow_up import DEADLINE as FOLLOW_UP_DEADLINE
from .opening.greeting import read_plan
from .opening.plan import FIRST_MEETING, Plan

logger = logging.getLogger("companion")
DEADLINE: Final = 1.0
"""Seconds from the start of a prefetch after which the companion talks without what the store has not yet answered."""
_MARGIN: Final = 0.5
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Briefing:
    """What the companion knows when a conversation begins.

    Attributes:
        profile: the caller's profile; empty when nothing is known.
        plan: how to open.
        earlier: what the system prompt says of earlier conversations; empty when there were none.
        language: the code of the language that was spoken with them; empty where it is not known.
    """

    profile: str = ""
    plan: Plan = FIRST_MEETING
    earlier: str = ""
    language: str = ""


def reads(user_id: str) -> dict[str, Coroutine[Any, Any, Any]]:
    """What is read for the start of the current caller's conversation, by its name."""
    return {
        "profile": get_user_profile_async(),
        "greeting": read_plan(user_id),
        "summary": get_conversation_summary_async(),
        "state": get_user_state_async(),
    }


class Reader(Protocol):
    """What talks without a profile that comes late."""

    @property
    def profile(self) -> str:
        """The profile that it has."""
        ...

    async def set_profile(self, profile: str) -> None:
        """Take a profile."""
        ...


class Prefetch:
    """Fetches a briefing in the background, from construction on.

    Args:
        caller: whose briefing; None fetches nothing.
        trace: the trace of the start, which gets the prefetch as a span.
    """

    def __init__(self, caller: Caller | None, trace: StartTrace | None = None) -> None:
        self._deadline = asyncio.create_task(sleep_unstalled(DEADLINE), name="prefetch-deadline")
        self._user_id = "" if caller is None else caller.user_id
        self._trace = trace
        self._span: Span | None = None
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._background = BackgroundTasks()
        if caller is not None:
            get_runtime().write_behind.beginnings.note(caller)
            if trace is not None:
                trace.mark("lookup started")
                self._span = trace.begin("context")
            with use_caller(caller):
                for name, read in reads(caller.user_id).items():
                    self._fetch(name, read)

    async def wait(self) -> None:
        """Wait until everything is fetched, or the deadline has passed and no model is judging on a follow-up."""
        pending = {task for task in self._tasks.values() if not task.done()}
        while pending and not self._deadline.done():
            await asyncio.wait({*pending, self._deadline}, return_when=asyncio.FIRST_COMPLETED)
            pending = {task for task in pending if not task.done()}
        self._deadline.cancel()
        # The turns have been read by then, and the greeting waits for the model, which has a deadline of its own.
        if self._tasks.get("greeting") in pending and get_runtime().judging[self._user_id]:
            await asyncio.wait({self._tasks["greeting"]}, timeout=FOLLOW_UP_DEADLINE + _MARGIN)

    async def without_plan(self) -> Briefing | None:
        """The briefing without how to open, on which a model may be judging; None where a part is late or failed."""
        reads = {task for name, task in self._tasks.items() if name != "greeting"}
        while (pending := {task for task in reads if not task.done()}) and not self._deadline.done():
            await asyncio.wait({*pending, self._deadline}, return_when=asyncio.FIRST_COMPLETED)
        if pending or any(task.cancelled() or task.exception() is not None for task in reads):
            return None
        return Briefing(profile=self._outcome("profile", ""), earlier=self._earlier(), language=self._language())

    async def result(self) -> Briefing:
        """The briefing, as complete as it is by the deadline. Cancels what is late, except for the profile."""
        await self.wait()
        blank = Briefing()
        profile, plan = self._outcome("profile", blank.profile), self._outcome("greeting", blank.plan)
        earlier = self._earlier()
        # The turns could not be read, but summary or state show that this is no first meeting.
        if earlier and plan == blank.plan:
            plan = Plan("fresh_start")
        return Briefing(profile, plan, earlier, self._language())

    def deliver_late_profile(self, reader: Reader) -> None:
        """Hand over a profile that missed the deadline, when it has been read.

        Args:
            reader: talks without it. A profile that it has learned by then is not replaced.
        """

        def deliver(read: asyncio.Task[str]) -> None:
            if not read.cancelled() and read.exception() is None and read.result() and not reader.profile:
                self._background.spawn(reader.set_profile(read.result()), name="late-profile")

        if (profile := self._tasks.get("profile")) is not None and not profile.done():
            profile.add_done_callback(deliver)

    def cancel(self) -> None:
        """Discard what is pending: cancels it, and retrieves exceptions."""
        self._deadline.cancel()
        for task in self._tasks.values():
            task.cancel()
            task.add_done_callback(retrieve_exception)

    def _earlier(self) -> str:
        state: dict[str, Any] = self._outcome("state", {})
        return earlier_conversations(
            self._outcome("summary", ""), state.get("conversations") or 0, state.get("stage") or ""
        )

    def _language(self) -> str:
        state: dict[str, Any] = self._outcome("state", {})
        language = state.get("language")
        return language_code(language) if isinstance(language, str) else ""

    def _fetch(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        self._tasks[name] = asyncio.create_task(work, name=f"prefetch-{name}")
        self._tasks[name].add_done_callback(self._on_done)

    def _on_done(self, _: asyncio.Task[Any]) -> None:
        if self._span is not None and self._trace is not None and all(task.done() for task in self._tasks.values()):
            span, self._span = self._span, None
            span.end()
            self._trace.mark("context ready")

    def _outcome(self, name: str, default: T) -> T:
        task: asyncio.Task[T] | None = self._tasks.get(name)
        if task is None:
            return default
        if not task.done():
            if name != "profile":
                task.cancel()
            logger.warning("the %s missed the deadline: going on without it", name)
            return default
        if task.cancelled() or (problem := task.exception()) is not None:
            reason = "cancelled" if task.cancelled() else type(problem).__name__
            logger.warning("the %s could not be fetched (%s): going on without it", name, reason)
            return default
        return task.result()
