"""The agent of one conversation: it greets first, and its instructions follow the caller's profile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from livekit.agents import Agent, FlushSentinel, ModelSettings, llm

from ..prompts import GREETING, instructions
from ..text import storable
from .storable_chat import storable_context, storable_pieces
from .tracing import StartTrace


class CompanionAgent(Agent):
    """The companion in one conversation.

    Args:
        profile: the caller's profile; empty when nothing is known.
        earlier: what the system prompt says of earlier conversations; empty when there were none.
        greeting: instructions for the first message.
        language: language code of speech.
        tools: the tools that the model may call.
        trace: the trace of the start; gets the events of the greeting and of the first token.
    """

    def __init__(
        self,
        *,
        profile: str = "",
        earlier: str = "",
        greeting: str = GREETING,
        language: str = "en",
        tools: Sequence[llm.Tool | llm.Toolset] = (),
        trace: StartTrace | None = None,
    ) -> None:
        profile = storable(profile)
        super().__init__(instructions=instructions(profile, language, earlier), tools=list(tools))
        self._greeting = greeting
        self._trace = trace
        self.profile = profile
        """The profile in the instructions; the store may hold a newer one."""
        self.profile_at_answer = profile
        """The profile in the instructions when the model began the current answer: the base of its profile updates."""
        self._language = language
        self._earlier = earlier

    async def on_enter(self) -> None:
        """Greet. The greeting may call no tool."""
        options: dict[str, Any] = {"tool_choice": "none"}
        if self._trace is not None:
            self._trace.mark("greeting asked")
        self.session.generate_reply(instructions=self._greeting, **options)

    async def llm_node(
        self, chat_ctx: llm.ChatContext, tools: list[llm.Tool], model_settings: ModelSettings
    ) -> AsyncIterator[llm.ChatChunk | str | FlushSentinel]:
        """Run the framework's node on storable texts; record the profile it starts from, and trace the first token."""
        self.profile_at_answer = self.profile
        answer = Agent.default.llm_node(self, storable_context(chat_ctx), tools, model_settings)
        async for chunk in storable_pieces(answer):
            if self._trace is not None:
                self._trace.first_token()
                self._trace = None
            yield chunk

    async def set_profile(self, profile: str) -> None:
        """Put a changed profile, or one that could not be read before, into the instructions."""
        if (profile := storable(profile)) != self.profile:
            self.profile = profile
            await self.update_instructions(instructions(profile, self._language, self._earlier))
