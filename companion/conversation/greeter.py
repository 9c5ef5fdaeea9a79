"""Greets the caller of a session, in the way that suits what was said last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from livekit.agents import NOT_GIVEN, AgentSession, llm
from livekit.agents.voice import SpeechHandle

from cache import BackgroundTasks

from ..identity import Caller, use_caller
from ..voice.agent import lasting_instructions
from ..voice.tracing import StartTrace
from .opening.plan import Plan
from .opening.preparation import Preparation
from .opening.prompt import GreetingPrompt
from .participant import Partner
from .realtime_instructions import model_of
from .record import Record


class Greeter:
    """Greets the caller of one session.

    Args:
        session: the session.
        partner: who the conversation is with.
        record: what was said until a job was killed.
        ready: waits for the briefing.
        refresh: gives it to a model that does not receive it with each request.
        caller: the caller, at each use.
        plan: how to open with them, by the briefing; None where the program decides.
        blank: whether nothing is known of the caller.
        preparation: learns what the greeting is written with, and keeps its speech.
        trace: the trace of the start.
    """

    def __init__(
        self,
        session: AgentSession[Any],
        partner: Partner,
        record: Record,
        *,
        ready: Callable[[], Awaitable[None]],
        refresh: Callable[[], Awaitable[None]],
        caller: Callable[[], Caller | None],
        plan: Callable[[], Plan | None],
        blank: Callable[[], bool],
        preparation: Preparation,
        trace: StartTrace | None,
    ) -> None:
        self._session, self._partner, self._record = session, partner, record
        self._ready, self._refresh, self._caller, self._plan = ready, refresh, caller, plan
        self._blank, self._preparation = blank, preparation
        self._trace = trace
        self._background = BackgroundTasks()
        self._later: asyncio.Task[None] | None = None
        self._closed = False

    async def greet(self, instructions: str) -> SpeechHandle | None:
        """What ``SessionMemory.greet`` does."""
        if self._later is not None:
            self._later.cancel()
        await self._ready()
        if self._partner.settled or self._closed:
            return await self._speak(instructions)
        self._later = self._background.spawn(self._speak_later(instructions), name="memory-greeting")
        return None

    def close(self) -> None:
        """Greet no more: the session is closed."""
        self._closed = True
        if self._later is not None:
            self._later.cancel()

    async def _speak_later(self, instructions: str) -> None:
        await self._partner.arrival()
        await self._ready()
        await self._speak(instructions)

    async def _speak(self, instructions: str) -> SpeechHandle | None:
        if not self._closed:
            await self._refresh()
        if self._closed or self._session._is_closing():  # LiveKit has no public way to ask
            return None
        caller = self._caller()
        if caller is not None and self._record.resumed:
            # They have been greeted; and whom the killed job did not answer is answered.
            said = self._record.earlier_turns
            unanswered = said and said[-1].role == "user" and not _has_spoken(self._session.history)
            return self._session.generate_reply() if unanswered else None
        if (speech := await self._say_prepared(caller, instructions)) is not None:
            return speech
        if self._closed:
            return None
        plan = self._plan() if self._caller() is not None else None
        if plan is not None and plan.kind == "dropped_call" and _has_spoken(self._session.history):
            plan = None  # who has spoken is back already; and what was said last may be that
        if plan is not None:
            instructions = plan.instructions(instructions).lstrip()
        if self._trace is not None:
            self._trace.mark("greeting asked")
        # A realtime model would need two more updates of its tools.
        options: dict[str, Any] = {} if isinstance(model_of(self._session), llm.RealtimeModel) else {"tools": []}
        try:
            with use_caller(self._caller):
                return self._session.generate_reply(instructions=instructions, tool_choice="none", **options)
        except RuntimeError:
            if not self._session.history.items:  # it was never started: an agent that starts is in its history
                raise
            return None  # it is closing

    async def _say_prepared(self, caller: Caller | None, instructions: str) -> SpeechHandle | None:
        """Say the greeting that was prepared for this caller and this prompt; None where there is none."""
        try:
            agent = self._session.current_agent
        except RuntimeError:  # it is not running
            return None
        if self._plan() is None or isinstance(model_of(self._session, agent), llm.RealtimeModel):
            return None
        if any(_has_spoken(said) for said in (self._session.history, agent.chat_ctx)):
            return None  # what was prepared does not answer it
        self._preparation.speech.speak_as(agent)
        prompt = self._preparation.note_prompt(lasting_instructions(agent), instructions)
        text, phrase = self._text(caller, prompt)
        if caller is None or not text:
            return None
        audio = await self._preparation.speech.find(None if phrase else caller.user_id, text)
        # Meanwhile another person may have taken the caller's place, or the session have been closed.
        if self._closed or self._text(self._caller(), prompt) != (text, phrase) or self._caller() != caller:
            return None
        if phrase and audio is None:  # the model greets better, and takes as long
            return None
        if self._trace is not None:
            self._trace.mark("greeting said")
            self._trace.end()
        try:
            with use_caller(self._caller):
                return self._session.say(text, audio=NOT_GIVEN if audio is None else audio)
        except RuntimeError:  # it is closing; or it has no voice, and no speech was prepared
            return None

    def _text(self, caller: Caller | None, prompt: GreetingPrompt) -> tuple[str, bool]:
        """What is to be said; empty where the model greets. And whether everybody hears it."""
        plan = self._plan()
        if caller is None or plan is None:
            return "", False
        if text := plan.text(prompt.hash):
            return text, False
        known_at_first = plan.kind == "first_meeting" and not self._blank()
        return ("" if known_at_first else prompt.phrase(plan.kind)), True


def _has_spoken(said: llm.ChatContext) -> bool:
    return any(isinstance(item, llm.ChatMessage) and item.role == "user" for item in said.items)
