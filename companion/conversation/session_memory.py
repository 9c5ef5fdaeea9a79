"""The memory of one session: the block about the caller in its requests, its greeting, its turns and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final
from weakref import ReferenceType, WeakKeyDictionary, ref

from livekit.agents import AgentSession, CloseEvent, ConversationItemAddedEvent, FunctionToolsExecutedEvent, llm
from livekit.agents.voice import SpeechHandle

from cache import BackgroundTasks

from ..identity import Caller
from ..memory.moving import move_at_start_async
from ..memory.read_deadline import within
from ..prompts import GREETING, remembered
from ..runtime import Runtime, release_runtime
from ..store import mentions
from ..text import storable
from ..voice.prepared_speech import speech_of
from ..voice.tracing import StartTrace
from .briefing import DEADLINE, Briefing, Prefetch
from .greeter import Greeter
from .greeting import FIRST_MEETING
from .hook import AgentHook
from .opening.preparation import Preparation
from .participant import OnChange, Partner
from .parts import Parts
from .record import Record
from .wrap_up import TIMEOUT

_POLL: Final = 0.1  # seconds between two looks at who is in the room: some changes have no event
_CLOSE_TIMEOUT: Final = 3.0  # seconds that the end of a job waits for the session: the last transcript may take two
_memories: WeakKeyDictionary[AgentSession[Any], ReferenceType[SessionMemory]] = WeakKeyDictionary()


def memory_of(session: AgentSession[Any]) -> SessionMemory | None:
    """The memory that ``attach`` gave a session; None if it has none."""
    found = _memories.get(session) if isinstance(session, AgentSession) else None
    return None if found is None else found()


class SessionMemory:
    """Remembers the caller of one session. Made by ``attach``.

    Args:
        session: the session.
        runtime: the runtime, which is acquired for it.
        parts: what it does.
        find: makes the partner, which calls its argument when the caller seems to be another person.
        place: names the room and the agent in it; empty where no conversation is continued.
        caller: the caller whom the job or the program names; None as long as they are not known.
        trace: the trace of the start.

    Attributes:
        partner: decides at each use who the conversation is with.
        profile: the caller's profile as the model receives it; the store may hold a newer one.
        profile_at_answer: the profile when the model began the current answer: the base of its profile updates.
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
        trace: StartTrace | None = None,
    ) -> None:
        self._session, self._parts, self._trace = session, parts, trace
        preparation = Preparation(speech_of(session, runtime.settings), runtime.settings.language)
        self._record = Record(runtime.write_behind, parts, place if parts.resume else "", preparation)
        self.profile = self.profile_at_answer = self._earlier = ""
        self._plan = FIRST_MEETING
        self._prefetch: Prefetch | None = None
        self._briefed: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()
        self._wrapped_up: asyncio.Task[Any] | None = None
        self._released = False
        self._background = BackgroundTasks()
        self._hook = AgentHook(session, self._read_block, self._start, self._place, tasks=parts.tasks)
        self.partner = find(self._meet)
        self._greeter = Greeter(
            session,
            self.partner,
            self._record,
            ready=self._ready,
            refresh=self._hook.refresh,
            caller=lambda: self.caller,
            plan=lambda: self._plan if parts.opening else None,
            preparation=preparation,
            trace=trace,
        )
        if caller is not None:
            self._meet(caller)
        session.on("conversation_item_added", self._on_item)
        session.on("function_tools_executed", self._on_tools)
        session.on("close", self._on_close)
        _memories[session] = ref(self)
        self._hook.on_handoff()  # of a session that runs already
        self.partner.look()
        self._background.spawn(self._watch(), name="memory-watch")

    def room_changed(self, *_: object) -> None:
        """Look at the room again. To be called at its events."""
        self._changed.set()

    def _meet(self, caller: Caller | None) -> None:
        """Prefetch what is known of the person who seems to be the caller, instead of another."""
        if self._prefetch is not None:
            self._prefetch.cancel()
        if self._briefed is not None:
            self._briefed.cancel()
        self._take(Briefing())
        self._record.leave()
        self._prefetch = Prefetch(caller, self._trace)
        self._briefed = self._background.spawn(self._brief(self._prefetch, caller), name="memory-briefing")

    @property
    def caller(self) -> Caller | None:
        """The caller, if the conversation is with them at this moment; None otherwise. To be asked at each use."""
        caller = self.partner.begin()
        if caller is not None:
            self._record.begin(caller)
        return caller

    @property
    def text(self) -> str:
        """The block about the caller that requests contain now; empty where the caller is unknown."""
        return self._told(self.caller)

    async def greet(self, instructions: str = GREETING) -> SpeechHandle | None:
        """Greet the caller, in the way that suits what was said last. Use it instead of ``session.generate_reply``.

        While the room is empty, the greeting follows when the session is linked to a participant. The greeting
        may call no tool.

        Args:
            instructions: how to greet anybody.

        Returns:
            The speech; None while no caller is there (any more), or where a job that was killed has greeted them.
        """
        return await self._greeter.greet(instructions)

    async def briefed(self) -> None:
        """Wait until the briefing is complete for a caller who is known before the session starts."""
        if self._briefed is not None:
            await asyncio.wait({self._briefed})

    async def set_profile(self, profile: str) -> None:
        """Tell the model a changed profile from its next request on, or one that could not be read before."""
        self.profile = storable(profile)
        await self._hook.refresh()

    async def forget(self, profile: str, things: Sequence[Sequence[str]]) -> None:
        """Tell the model nothing more of what was forgotten.

        Args:
            profile: the profile without it.
            things: the words of each thing, see ``words_of``.
        """
        if self._prefetch is not None:  # what comes late was read before
            self._prefetch.cancel()
        if any(mentions(self._earlier, words) for words in things):
            self._earlier = ""
        self._plan = replace(self._plan, texts={})
        self.profile_at_answer = storable(profile)
        await self.set_profile(profile)

    async def forget_everything(self) -> None:
        """Go on as with a stranger."""
        self._earlier = ""
        self._record.forget()
        await self.forget("", [])
        for agent in self._hook.agents:
            await agent.update_chat_ctx(llm.ChatContext.empty())

    async def aclose(self) -> None:
        """Wait until the session is closed and its conversation wrapped up. A job does it when it ends."""
        if self._released:
            return
        self._released = True
        try:
            if self._hook.agents:  # it has started
                await within(self._closed.wait(), _CLOSE_TIMEOUT)
            self._on_close()
            if self._wrapped_up is not None:
                await asyncio.wait({self._wrapped_up}, timeout=TIMEOUT)
            await self._background.cancel(timeout=1.0)
        finally:
            await release_runtime()

    def _on_close(self, _: CloseEvent | None = None) -> None:
        self._closed.set()
        if self._wrapped_up is not None:
            return
        # What was said last, and what a tool is doing about it, may come after the event: it is stored as well.
        self._hook.remove()
        if self._prefetch is not None:
            self._prefetch.cancel()
        if self._briefed is not None:
            self._briefed.cancel()
        self._greeter.close()
        if self._trace is not None:
            self._trace.end()
        self._wrapped_up = self._background.spawn(self._record.end(), name="memory-wrap-up")

    def _place(self, chat_ctx: llm.ChatContext, index: int) -> None:
        if self.caller is not None:
            self._record.place(chat_ctx, index)

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        if isinstance(event.item, llm.AgentHandoff):
            self.partner.started()
            self._hook.on_handoff()
        elif isinstance(event.item, llm.ChatMessage):
            if self.caller is not None:
                self._record.on_item(event)
            self._hook.refresh_soon()

    def _on_tools(self, event: FunctionToolsExecutedEvent) -> None:
        if self.caller is not None:
            self._record.on_tools(event)

    def _take(self, briefing: Briefing) -> None:
        self.profile = self.profile_at_answer = storable(briefing.profile)
        self._earlier, self._plan = briefing.earlier, briefing.plan

    async def _brief(self, prefetch: Prefetch, caller: Caller | None) -> None:
        if caller is not None and caller.earlier and await move_at_start_async(caller.user_id, caller.earlier):
            prefetch.cancel()
            self._prefetch = prefetch = Prefetch(caller, self._trace)
        if caller is not None:
            await self._record.open(caller)
        self._take(await prefetch.result())
        prefetch.deliver_late_profile(self)

    def _told(self, caller: Caller | None) -> str:
        if caller is None or not (self._parts.profile or self._parts.earlier):
            return ""
        return remembered(self.profile if self._parts.profile else "", self._earlier if self._parts.earlier else "")

    def _start(self, chat_ctx: llm.ChatContext) -> str:
        """Put earlier turns into the context of an agent that starts. Returns the block for its model."""
        caller = self.partner.expected
        if caller is None or self._briefed is None or not self._briefed.done():
            return ""
        self._record.place(chat_ctx, 0)
        return self._told(caller)

    async def _read_block(self) -> str:
        """The block for the model's next request; waits for the briefing, ``DEADLINE`` at most."""
        await self._ready(DEADLINE)
        self.profile_at_answer = self.profile
        return self.text

    async def _watch(self) -> None:
        """Look at who is in the room until the conversation begins, so that nothing waits for the prefetch then."""
        while not self._record.begun and not self._closed.is_set():
            self.partner.look()
            self._changed.clear()
            await within(self._changed.wait(), _POLL)

    async def _ready(self, timeout: float | None = None) -> None:
        """Wait until the caller is known, ``DEADLINE`` at most, and until the briefing for them is complete.

        Args:
            timeout: seconds for both; None waits as long as the briefing allows itself.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        if not self._record.begun:
            await within(self.partner.arrival(), DEADLINE)
        task = None
        while self._briefed is not task:
            task = self._briefed
            if task is not None:
                left = None if timeout is None else max(start + timeout - loop.time(), 0)
                await asyncio.wait({task}, timeout=left)
            self.partner.look()
