"""Greets the caller of a session, in the way that suits what was said last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from livekit.agents import AgentSession, llm
from livekit.agents.voice import SpeechHandle

from cache import BackgroundTasks

from ..identity import Caller, use_caller
from ..voice.tracing import StartTrace
from .participant import Partner
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
        opening: how to open with them, by the briefing.
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
        opening: Callable[[], str],
        trace: StartTrace | None,
    ) -> None:
        self._session, self._partner, self._record = session, partner, record
        self._ready, self._refresh, self._caller, self._opening = ready, refresh, caller, opening
        self._trace = trace
        self._background = BackgroundTasks()
        self._later: asyncio.Task[None] | None = None
        self._closed = False

    async def greet(self, instructions: str) -> SpeechHandle | None:
        """What ``SessionMemory.greet`` does."""
        await self._ready()
        if self._partner.settled or self._closed:
            return await self._speak(instructions)
        if self._later is not None:
            self._later.cancel()
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
            return self._session.generate_reply() if said and said[-1].role == "user" else None
        if caller is not None and (opening := self._opening()):
            instructions = f"{instructions.rstrip()}\n\n{opening}".lstrip()
        if self._trace is not None:
            self._trace.mark("greeting asked")
        # A realtime model would need two more updates of its tools.
        options: dict[str, Any] = {} if isinstance(self._session.llm, llm.RealtimeModel) else {"tools": []}
        try:
            with use_caller(self._caller):
                return self._session.generate_reply(instructions=instructions, tool_choice="none", **options)
        except RuntimeError:
            if not self._session.history.items:  # it was never started: an agent that starts is in its history
                raise
            return None  # it is closing
