"""The record of one conversation: its turns, from the job that began it to the one that ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from livekit.agents import ConversationItemAddedEvent, FunctionToolsExecutedEvent, llm

from cache import BackgroundTasks

from ..identity import Caller
from ..store import Turn
from ..writes import WriteBehind
from .continuation import Continuation
from .opening.preparation import Preparation
from .parts import Parts
from .turn_log import TurnLog
from .wrap_up import end_conversation


class Record:
    """Stores the turns of one conversation, and continues one whose job was killed.

    Args:
        writes: takes the turns to the store.
        parts: what the memory does.
        place: names the room and the agent in it; empty where no conversation is continued.
        preparation: prepares how the next conversation opens.
    """

    def __init__(self, writes: WriteBehind, parts: Parts, place: str, preparation: Preparation) -> None:
        self._writes, self._parts, self._preparation = writes, parts, preparation
        self._place = place if parts.resume else ""
        self._log: TurnLog | None = None
        self._continued: Continuation | None = None
        self._opening: Continuation | None = None
        self._waiting: list[Callable[[], None]] = []  # what happened while a lease was waited for
        self._background = BackgroundTasks()

    @property
    def begun(self) -> bool:
        """Whether the conversation has begun."""
        return self._log is not None or bool(self._waiting)

    @property
    def earlier_turns(self) -> Sequence[Turn]:
        """What was said until a job was killed; empty for a new conversation."""
        return self._continued.turns if self._continued is not None else ()

    @property
    def resumed(self) -> bool:
        """Whether something was said until a job was killed, if only the greeting."""
        return self._continued is not None and self._continued.resumed

    async def open(self, caller: Caller) -> None:
        """Look whether a conversation with this person was cut off in the room."""
        if not self._place or self.begun:
            return
        self._opening = continued = Continuation(self._place, caller, self._part)
        try:
            await continued.open()
        except BaseException:
            if self._opening is continued:
                self._opened()
            await continued.close()
            raise
        if self._opening is continued:
            self._continued = continued
            self._opened()
        else:
            await continued.close()

    def _opened(self) -> None:
        """Do what waited: the caller may speak before the lease of a killed job has expired."""
        self._opening = None
        waiting, self._waiting = self._waiting, []
        for happened in waiting:
            happened()

    def leave(self) -> None:
        """Give back what :meth:`open` took: the conversation is with another person."""
        self._opened()
        if self._continued is not None:
            self._background.spawn(self._continued.close(), name="conversation-leave")
            self._continued = None

    def begin(self, caller: Caller) -> None:
        """Begin, unless that was done; where it may be one to continue, as soon as that is known."""
        if self._opening is not None:
            if not self._waiting:
                self._waiting.append(partial(self.begin, caller))
        elif self._log is None:
            id_ = self._continued.conversation_id if self._continued is not None else None
            self._log = TurnLog(caller, self._writes, id_, self.earlier_turns)

    def forget(self) -> None:
        """Go on without what was said before."""
        if self._opening is not None:
            self._waiting.append(self.forget)
        elif self._continued is not None:
            self._continued.turns.clear()

    def place(self, chat_ctx: llm.ChatContext, index: int) -> None:
        """Put what was said until a job was killed into the context of one request, from ``index`` on."""
        if self._continued is not None:
            self._continued.place(chat_ctx, index)

    def on_item(self, event: ConversationItemAddedEvent) -> None:
        """Store what was said."""
        if self._opening is not None and self._waiting:
            self._waiting.append(partial(self.on_item, event))
        elif self._log is not None and self._parts.turns:
            self._log.on_item(event)
            if self._parts.wrap_up and self._log.turns and self._log.turns[-1].role == "user" and self._log.caller:
                self._preparation.note(self._log.caller)
            if self._continued is not None:
                self._continued.on_item()

    def on_tools(self, event: FunctionToolsExecutedEvent) -> None:
        """Mark what was asked to be forgotten."""
        if self._opening is not None and self._waiting:
            self._waiting.append(partial(self.on_tools, event))
        elif self._log is not None:
            self._log.on_tools(event)

    async def end(self) -> None:
        """Flush the turns and wrap up. To be called once."""
        self._opened()
        if self._continued is not None:
            await self._continued.close()
            if self._continued.turns:  # also if nothing more was said: no other job will wrap them up
                self.begin(self._continued.caller)
        await self._background.ended(1.0)
        if self._log is not None:
            wanted = self._parts.wrap_up and self._log.own
            await (end_conversation(self._log, self._preparation) if wanted else self._log.close())
        await self._preparation.close()

    def _part(self) -> None:
        if self._log is not None:
            self._log.part()
