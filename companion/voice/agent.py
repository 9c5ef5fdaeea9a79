"""The agent of one conversation: persona, clock, token budget, and what to do when a model fails."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from livekit import rtc
from livekit.agents import Agent, FlushSentinel, ModelSettings, llm

from ..prompts import instructions, persona
from ..speech import sounds_like_the_voice
from .failure import FailureHandler
from .request_window import RequestWindow
from .silence import spoken_within_deadline, within_deadline
from .storable_chat import storable_context, storable_pieces
from .tracing import StartTrace

MAX_CLOCK_AGE: Final = 300.0
"""Seconds after which the time in the instructions is renewed. Not at each turn: providers cache what stays equal."""


class CompanionAgent(Agent):
    """The companion in one conversation.

    What it knows of the caller comes from ``attach``.

    Args:
        language: language code of speech; or a function that finds it at each request.
        timezone: the caller's time zone; None where it is not known.
        tools: the tools that the model may call.
        trace: the trace of the start; gets the event of the first token.
        failure: apologises when a model fails. Without one, the framework decides.
    """

    def __init__(
        self,
        *,
        language: str | Callable[[], str] = "en",
        timezone: ZoneInfo | None = None,
        tools: Sequence[llm.Tool | llm.Toolset] = (),
        trace: StartTrace | None = None,
        failure: FailureHandler | None = None,
    ) -> None:
        self._language = language if callable(language) else lambda: language
        self._timezone = timezone
        super().__init__(instructions=self._render(), tools=list(tools))
        self._trace = trace
        self._failure = failure
        self._window = RequestWindow()

    @property
    def lasting_instructions(self) -> str:
        """The instructions without what changes with the clock."""
        return persona(self._language())

    async def on_exit(self) -> None:
        """Stop what runs in the background."""
        await self._window.close()

    async def llm_node(
        self, chat_ctx: llm.ChatContext, tools: list[llm.Tool], model_settings: ModelSettings
    ) -> AsyncIterator[llm.ChatChunk | str | FlushSentinel]:
        """Run the framework's node on storable texts below the token budget, and trace the first token."""
        model = self.session.llm
        context = await self._with_clock(chat_ctx)
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

    @sounds_like_the_voice
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

    def _render(self) -> str:
        """The instructions, with the time as it is now."""
        self._rendered_at, self._rendered_in = time.monotonic(), self._language()
        zone = self._timezone
        now = None if zone is None else datetime.now(zone)
        return instructions(self._rendered_in, now=now, zone=zone.key if zone else "")

    async def _with_clock(self, context: llm.ChatContext) -> llm.ChatContext:
        """``context`` with the present language, and a time that is not older than ``MAX_CLOCK_AGE``, in it."""
        if time.monotonic() - self._rendered_at <= MAX_CLOCK_AGE and self._rendered_in == self._language():
            return context
        old, new = self.instructions, self._render()
        await self.update_instructions(new)
        return llm.ChatContext(
            [
                item.model_copy(update={"content": [new]})
                if isinstance(item, llm.ChatMessage) and item.role == "system" and item.raw_text_content == old
                else item
                for item in context.items
            ]
        )


def lasting_instructions(agent: Agent) -> str:
    """The instructions of an agent, without what changes with the clock or with each call where that is known.

    System messages that the program has given it count, as they may be about the caller; LiveKit's own repeat the rest.
    """
    own = agent.lasting_instructions if isinstance(agent, CompanionAgent) else agent.instructions
    given = (
        item.text_content or ""
        for item in agent.chat_ctx.items
        if isinstance(item, llm.ChatMessage) and item.role in ("system", "developer") and not item.id.startswith("lk.")
    )
    return "\n\n".join([own if isinstance(own, str) else own.render_static(modality="audio"), *given])
