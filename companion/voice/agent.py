"""The agent of one conversation: it greets first, and its instructions follow the caller's profile."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from livekit import rtc
from livekit.agents import Agent, FlushSentinel, ModelSettings, llm

from ..prompts import GREETING, instructions
from ..store import mentions
from ..text import storable
from .failure import FailureHandler, spoken_within_deadline, within_deadline
from .request_window import RequestWindow
from .storable_chat import storable_context, storable_pieces
from .tracing import StartTrace

MAX_CLOCK_AGE: Final = 300.0
"""Seconds after which the time in the instructions is renewed. Not at each turn: providers cache what stays equal."""


class CompanionAgent(Agent):
    """The companion in one conversation.

    Args:
        profile: the caller's profile; empty when nothing is known.
        earlier: what the system prompt says of earlier conversations; empty when there were none.
        greeting: instructions for the first message.
        language: language code of speech.
        timezone: the caller's time zone; None where it is not known.
        tools: the tools that the model may call.
        knows: whether the conversation still is with the caller; without one it always is. Once it is not, the
            instructions say nothing more of them.
        trace: the trace of the start; gets the events of the greeting and of the first token.
        failure: apologises when a model fails. Without one, the framework decides.
    """

    def __init__(
        self,
        *,
        profile: str = "",
        earlier: str = "",
        greeting: str = GREETING,
        language: str = "en",
        timezone: ZoneInfo | None = None,
        tools: Sequence[llm.Tool | llm.Toolset] = (),
        knows: Callable[[], bool] = lambda: True,
        trace: StartTrace | None = None,
        failure: FailureHandler | None = None,
    ) -> None:
        profile = storable(profile)
        self._language, self._timezone, self._earlier = language, timezone, earlier
        super().__init__(instructions=self._render(profile), tools=list(tools))
        self._greeting = greeting
        self._knows = knows
        self._trace = trace
        self._failure = failure
        self._window = RequestWindow()
        self.profile = profile
        """The profile in the instructions; the store may hold a newer one."""
        self.profile_at_answer = profile
        """The profile in the instructions when the model began the current answer: the base of its profile updates."""

    async def on_enter(self) -> None:
        """Greet. The greeting may call no tool."""
        options: dict[str, Any] = {"tool_choice": "none"}
        if self._trace is not None:
            self._trace.mark("greeting asked")
        self.session.generate_reply(instructions=self._greeting if self._knows() else GREETING, **options)

    async def on_exit(self) -> None:
        """Stop what runs in the background."""
        await self._window.close()

    async def llm_node(
        self, chat_ctx: llm.ChatContext, tools: list[llm.Tool], model_settings: ModelSettings
    ) -> AsyncIterator[llm.ChatChunk | str | FlushSentinel]:
        """Run the framework's node on storable texts below the token budget.

        Also records the profile it starts from, and traces the first token.
        """
        model = self.session.llm
        context = await self._with_instructions(chat_ctx)
        self.profile_at_answer = self.profile
        context = self._window.fit(context, model if isinstance(model, llm.LLM) else None)
        context = storable_context(context)
        answer = Agent.default.llm_node(self, context, tools, model_settings)
        try:
            async for chunk in storable_pieces(within_deadline(answer)):
                if self._trace is not None:
                    self._trace.first_token()
                    self._trace = None
                yield chunk
        except Exception as problem:  # whatever a model's client raises
            if self._failure is None:
                raise
            self._failure.failed("model", problem)

    async def tts_node(self, text: AsyncIterable[str], model_settings: ModelSettings) -> AsyncIterator[rtc.AudioFrame]:
        """Run the framework's node; a voice that fails, or makes no sound, ends the conversation."""
        try:
            async for frame in spoken_within_deadline(
                text, lambda pieces: Agent.default.tts_node(self, pieces, model_settings)
            ):
                yield frame
        except Exception as problem:  # whatever a voice's client raises
            if self._failure is None:
                raise
            self._failure.failed("voice", problem)

    async def set_profile(self, profile: str) -> None:
        """Put a changed profile, or one that could not be read before, into the instructions."""
        if (profile := storable(profile)) != self.profile:
            self.profile = profile
            await self.update_instructions(self._render(profile))

    async def forget(self, profile: str, things: Sequence[Sequence[str]]) -> None:
        """Take what was forgotten out of the instructions.

        Args:
            profile: the profile without it.
            things: the words of each thing, see ``words_of``.
        """
        if any(mentions(self._earlier, words) for words in things):
            self._earlier = ""
        self.profile = self.profile_at_answer = storable(profile)
        await self.update_instructions(self._render(self.profile))

    async def forget_everything(self) -> None:
        """Go on as with a stranger: without profile, earlier conversations, and what was said in this one."""
        await self._window.close()
        self._window = RequestWindow()
        self._earlier = ""
        await self.forget("", [])
        await self.update_chat_ctx(llm.ChatContext.empty())

    def _render(self, profile: str) -> str:
        """The instructions, with the time as it is now."""
        self._rendered_at = time.monotonic()
        zone = self._timezone
        now = None if zone is None else datetime.now(zone)
        return instructions(profile, self._language, self._earlier, now=now, zone=zone.key if zone else "")

    async def _with_instructions(self, context: llm.ChatContext) -> llm.ChatContext:
        """``context`` with instructions as they are now: of the caller only if the conversation is with them.

        Their time is not older than ``MAX_CLOCK_AGE``.
        """
        strange = bool(self.profile or self._earlier) and not self._knows()
        if strange:
            self.profile = self._earlier = ""
        elif time.monotonic() - self._rendered_at <= MAX_CLOCK_AGE:
            return context
        old, new = self.instructions, self._render(self.profile)
        await self.update_instructions(new)
        return llm.ChatContext(
            [
                item.model_copy(update={"content": [new]})
                if isinstance(item, llm.ChatMessage) and item.role == "system" and item.raw_text_content == old
                else item
                for item in context.items
            ]
        )
