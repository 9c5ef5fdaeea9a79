"""The memory of one session: the block about the caller in its requests, its greeting, its turns and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final
from weakref import ReferenceType, WeakKeyDictionary, ref

from livekit.agents import AgentSession, CloseEvent, ConversationItemAddedEvent, FunctionToolsExecutedEvent, llm
from livekit.agents.voice import SpeechHandle

from cache import BackgroundTasks

from ..identity import Caller
from ..prompts import GREETING
from ..runtime import Runtime, release_runtime
from ..voice.prepared_speech import speech_of
from ..voice.tracing import StartTrace
from ..waiting import within
from .briefing import DEADLINE
from .greeter import Greeter
from .hook import AgentHook
from .knowledge import Knowledge
from .opening.preparation import Preparation
from .participant import OnChange, Partner
from .parts import Parts
from .record import Record
from .spoken_language import SpokenLanguage
from .wrap_up import TIMEOUT

_POLL: Final = 0.1  # seconds between two looks at who is in the room: some changes have no event
CLOSE_TIMEOUT: Final = 3.0
"""Seconds that the end of a job waits for the session to close: the last transcript may take two."""
_memories: WeakKeyDictionary[AgentSession[Any], ReferenceType[SessionMemory]] = WeakKeyDictionary()


def memory_of(session: AgentSession[Any]) -> SessionMemory | None:
    """The memory that ``attach`` gave a session; None if it has none."""
    found = _memories.get(session) if isinstance(session, AgentSession) else None
    return None if found is None else found()


class SessionMemory:
    """Remembers the caller of one session, until the session is closed. Made by ``attach``.

    Args:
        session: the session.
        runtime: the runtime, which is acquired for it.
        parts: what it does.
        find: makes the partner, which calls its argument when the caller seems to be another person.
        place: names the room and the agent in it; empty where no conversation is continued.
        caller: the caller whom the job or the program names; None as long as they are not known.
        language: the language that the job names, with any caller; empty where it names none, or a user's.
        trace: the trace of the start.

    Attributes:
        known: what is known of the caller, and what the model receives of it.
        partner: decides at each use who the conversation is with.
    """

    def __init__(
        self,
        session: AgentSession[Any],
        runtime: Runtime,
        parts: Parts,
        find: Callable[[OnChange], Partner],
        *,
        place: str = "",
        caller: Caller | None = None,
        language: str = "",
        trace: StartTrace | None = None,
    ) -> None:
        self._session, self._runtime, self._parts, self._trace = session, runtime, parts, trace
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()
        self._wrapped_up: asyncio.Task[Any] | None = None
        self._ending = False
        self._ended = asyncio.Event()
        self._background = BackgroundTasks()
        self._language = SpokenLanguage(language or runtime.settings.language)
        preparation = Preparation(speech_of(session, runtime.settings), lambda: self.language, parts)
        self._record = Record(runtime.write_behind, parts, place, preparation)
        self._hook = AgentHook(session, self._read_block, self._start, self._place, tasks=parts.tasks)
        self.known = Knowledge(self._record, self._hook, find, trace)
        self.partner = self.known.partner
        self._greeter = Greeter(
            session,
            self.partner,
            self._record,
            ready=self._ready,
            refresh=self._hook.refresh,
            caller=lambda: self.caller,
            plan=lambda: self.known.plan if parts.opening else None,
            blank=lambda: not self.known.words,
            preparation=preparation,
            trace=trace,
        )
        if caller is not None:
            self.known.meet(caller)
        session.on("conversation_item_added", self._on_item)
        session.on("function_tools_executed", self._on_tools)
        session.on("close", self._on_close)
        _memories[session] = ref(self)
        if session.agent_state != "initializing":  # it runs already
            self._begin_agent()
        self.partner.look()
        self._follow_language()
        self._background.spawn(self._watch(), name="memory-watch")

    def room_changed(self, *_: object) -> None:
        """Look at the room again. To be called at its events."""
        self._changed.set()

    @property
    def caller(self) -> Caller | None:
        """The caller, if the conversation is with them at this moment; None otherwise. To be asked at each use."""
        caller = self.partner.begin()
        if caller is not None:
            self._record.begin(caller)
        return caller

    @property
    def moments(self) -> Mapping[str, float]:
        """When each moment of the start was, by ``time.perf_counter``; empty without a trace."""
        return {} if self._trace is None else self._trace.moments

    @property
    def closed(self) -> bool:
        """Whether the session is closed: if it is started again, it needs another memory."""
        return self._closed.is_set()

    @property
    def text(self) -> str:
        """The block about the caller that requests contain now; empty where the caller is unknown."""
        return self._block_for(self.caller)

    @property
    def language(self) -> str:
        """The language code of the conversation: the caller's where it is known, else ``COMPANION_LANGUAGE``."""
        return self._language.code

    def on_language(self, speak: Callable[[str], None]) -> None:
        """Call ``speak`` with the language, now and when it changes, so that a program's models follow.

        It changes when it becomes known who the caller is, or what their profile says (``Language: German``).
        """
        self._language.on_change(speak)

    async def greet(self, instructions: str = GREETING) -> SpeechHandle | None:
        """Greet the caller, in the way that suits what was said last. Use it instead of ``session.generate_reply``.

        While the room is empty, the greeting follows when the session is linked to a participant; of several
        that wait for one, the last. The greeting may call no tool.

        Args:
            instructions: how to greet anybody.

        Returns:
            The speech; None while no caller is there (any more), or where a job that was killed has greeted them.
        """
        return await self._greeter.greet(instructions)

    async def briefed(self) -> None:
        """Wait until it is read what requests hold of a caller who is known before the session starts."""
        if self.partner.expected is not None and self.known.reading is not None:
            await asyncio.wait({self.known.reading})

    async def aclose(self) -> None:
        """Wait until the session is closed and its conversation wrapped up. A job does it when it ends."""
        if self._ending:
            await self._ended.wait()
            return
        self._ending = True
        try:
            if self._session.agent_state != "initializing":  # it is running
                await within(self._closed.wait(), CLOSE_TIMEOUT)
            self._on_close()
            if self._wrapped_up is not None:
                await asyncio.wait({self._wrapped_up}, timeout=TIMEOUT)
            await self._background.cancel(timeout=1.0)
        finally:
            self._detach()
            self._ended.set()
            await release_runtime(self._runtime)

    def _on_close(self, _: CloseEvent | None = None) -> None:
        self._closed.set()
        if self._wrapped_up is not None:
            return
        # What was said last, and what a tool is doing about it, may come after the event: it is stored as well.
        self._hook.remove()
        self.known.stop()
        self._greeter.close()
        if self._trace is not None:
            self._trace.end()
        self._wrapped_up = self._background.spawn(self._record.end(), name="memory-wrap-up")

    def _detach(self) -> None:
        """Take nothing more from the session."""
        self._session.off("conversation_item_added", self._on_item)
        self._session.off("function_tools_executed", self._on_tools)
        self._session.off("close", self._on_close)
        if memory_of(self._session) is self:
            del _memories[self._session]

    def _place(self, chat_ctx: llm.ChatContext, index: int) -> None:
        if self.caller is not None:
            self._record.place(chat_ctx, index)

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        if isinstance(event.item, llm.AgentHandoff):
            if self.closed:  # it is started again, for another conversation
                self._detach()
            else:
                self._begin_agent()
        elif isinstance(event.item, llm.ChatMessage):
            if self.caller is not None:
                self._record.on_item(event)
            self._hook.refresh_soon()

    def _begin_agent(self) -> None:
        self.partner.started()
        self._hook.on_handoff()

    def _on_tools(self, event: FunctionToolsExecutedEvent) -> None:
        if self.caller is not None:
            self._record.on_tools(event)

    def _block_for(self, caller: Caller | None) -> str:
        if caller is None:
            return ""
        return self.known.block(profile=self._parts.profile, earlier=self._parts.earlier)

    def _start(self, chat_ctx: llm.ChatContext) -> str:
        """Put earlier turns into the context of an agent that starts. Returns the block for its model."""
        caller, reading = self.partner.expected, self.known.reading
        if caller is None or reading is None or not reading.done():
            return ""
        self._record.place(chat_ctx, 0)
        return self._block_for(caller)

    async def _ready(self, timeout: float | None = None) -> None:
        await self.known.ready(timeout)
        self._follow_language()

    def _follow_language(self) -> None:
        caller = self.partner.expected
        self._language.follow("" if caller is None else caller.language or self.known.language)

    async def _read_block(self) -> str:
        """The block for the model's next request; waits for what is read, ``DEADLINE`` at most."""
        await self._ready(DEADLINE)
        self.known.profile_at_answer = self.known.profile
        return self.text

    async def _watch(self) -> None:
        """Look at who is in the room, so that nothing waits for the prefetch when the conversation begins.

        It also lets a realtime model, which keeps its instructions, know at once when the caller changes.
        """
        while not self.closed:
            self.partner.look()
            self._follow_language()
            self._hook.check(self._block_for(self.partner.caller))
            self._changed.clear()
            await within(self._changed.wait(), _POLL)
