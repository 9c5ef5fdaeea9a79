"""What is known of a session's caller: its requests and its greeting are made of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from livekit.agents import llm

from cache import BackgroundTasks

from ..identity import Caller, language_in
from ..memory.moving import move_at_start_async
from ..prompts import remembered
from ..store import mentions
from ..text import storable
from ..voice.tracing import StartTrace
from .briefing import DEADLINE, Briefing, Prefetch
from .hook import AgentHook
from .opening.plan import FIRST_MEETING, Kind, Plan
from .participant import OnChange, Partner
from .record import Record


class Knowledge:
    """What is known of the person who seems to be the caller of one session.

    Args:
        record: the conversation, which may be one to continue.
        hook: gives it to the model.
        find: makes the partner, which calls its argument when the caller seems to be another person.
        trace: the trace of the start.

    Attributes:
        partner: decides at each use who the conversation is with.
        profile: the profile as the model receives it; the store may hold a newer one.
        profile_at_answer: the profile when the model began the current answer: the base of its profile updates.
        plan: how to open.
        reading: reads what requests hold of the latest person; None as long as there was none.
        briefing: after it, how to open, on which a model may be judging.
    """

    def __init__(
        self, record: Record, hook: AgentHook, find: Callable[[OnChange], Partner], trace: StartTrace | None
    ) -> None:
        self._record, self._hook, self._trace = record, hook, trace
        self._background = BackgroundTasks()
        self.profile = self.profile_at_answer = self._earlier = self._language = ""
        self.reading: asyncio.Task[bool] | None = None
        self.plan = FIRST_MEETING
        self.briefing: asyncio.Task[None] | None = None
        self._prefetch: Prefetch | None = None
        self._stopped = False
        self.partner = find(self.meet)

    def meet(self, caller: Caller | None) -> None:
        """Prefetch what is known of a person, instead of another."""
        if self._stopped:
            return
        self._cancel()
        blank = Briefing()
        self._take(blank)
        self.plan = blank.plan
        self._record.leave()
        self._prefetch = Prefetch(caller, self._trace)
        self.reading = self._background.spawn(self._read(self._prefetch, caller), name="memory-reading")
        self.briefing = self._background.spawn(self._brief(self.reading), name="memory-briefing")

    async def ready(self, timeout: float | None = None) -> None:
        """Wait until the caller is known, ``DEADLINE`` at most, and what is known of them.

        Args:
            timeout: seconds for both, without how to open; None waits for that too, as long as it allows itself.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        if not (self._record.begun or self._stopped):
            await self.partner.arrival(DEADLINE)
        waited: asyncio.Task[Any] | None = None
        while (task := self.briefing if timeout is None else self.reading) is not waited:
            waited = task
            if task is not None:
                left = None if timeout is None else max(start + timeout - loop.time(), 0)
                await asyncio.wait({task}, timeout=left)
            self.partner.look()

    def stop(self) -> None:
        """Read nothing more."""
        self._stopped = True
        self._cancel()

    @property
    def words(self) -> str:
        """All that is known of the caller; empty where that is nothing."""
        plan = (self.plan.topic, self.plan.last_words, *self.plan.texts.values())
        said = (turn.text for turn in self._record.earlier_turns if turn.role == "user")
        return "\n".join(filter(None, (self.profile, self._earlier, *plan, *said)))

    @property
    def language(self) -> str:
        """The code of the caller's language: what their profile says, else what was spoken; empty without either."""
        return language_in(self.profile) or self._language

    def block(self, *, profile: bool, earlier: bool) -> str:
        """The block of a request, with these parts; empty without any."""
        if not (profile or earlier):
            return ""
        return remembered(self.profile if profile else "", self._earlier if earlier else "")

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
        if self._prefetch is not None:  # what it has read, and what comes late, is from before
            self._prefetch.cancel()
            self._prefetch = None
        if any(mentions(self._earlier, words) for words in things):
            self._earlier = ""
        plain: Kind = "fresh_start" if self.plan.opening == "follow_up" else self.plan.opening
        self.plan = Plan(plain, self.plan.last_seen)
        self.profile_at_answer = storable(profile)
        await self.set_profile(profile)

    async def forget_everything(self) -> None:
        """Go on as with a stranger: without profile, earlier conversations, and what was said in this one."""
        self._earlier = self._language = ""
        self.plan = FIRST_MEETING
        self._record.forget()
        await self.forget("", [])
        for agent in self._hook.agents:
            await agent.update_chat_ctx(llm.ChatContext.empty())

    def _cancel(self) -> None:
        if self._prefetch is not None:
            self._prefetch.cancel()
        for task in (self.reading, self.briefing):
            if task is not None:
                task.cancel()

    async def _read(self, prefetch: Prefetch, caller: Caller | None) -> bool:
        if caller is not None and caller.earlier and await move_at_start_async(caller.user_id, caller.earlier):
            prefetch.cancel()
            self._prefetch = prefetch = Prefetch(caller, self._trace)
        # An answer that does not wait for the lease of another job knows the caller all the same.
        if caller is None:
            return await self._receive(prefetch)
        complete, _ = await asyncio.gather(self._receive(prefetch), self._record.open(caller))
        return complete

    async def _receive(self, prefetch: Prefetch) -> bool:
        stored = await prefetch.without_plan()
        if stored is None or self._prefetch is not prefetch:  # late; or something was forgotten since
            return False
        self._take(stored)
        return True

    async def _brief(self, reading: asyncio.Task[bool]) -> None:
        complete, prefetch = await asyncio.shield(reading), self._prefetch
        if prefetch is None:
            return
        briefing = await prefetch.result()
        if self._prefetch is not prefetch:
            return
        if not complete:
            self._take(briefing)
            prefetch.deliver_late_profile(self)
        self.plan = briefing.plan

    def _take(self, briefing: Briefing) -> None:
        self.profile = self.profile_at_answer = storable(briefing.profile)
        self._earlier, self._language = briefing.earlier, briefing.language
