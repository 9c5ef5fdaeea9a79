"""The agent of one conversation: it greets first, and its instructions follow the caller's profile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from livekit.agents import Agent, FlushSentinel, ModelSettings, llm

from ..prompts import GREETING, instructions
from .tracing import StartTrace


class CompanionAgent(Agent):
    """The companion in one conversation.

    Args:
        profile: what is known about the person.
        earlier: what was before this conversation.
        greeting: instructions for the first message.
        language: language code of speech.
        tools: what it may do.
        trace: told when the greeting is asked for and when the first token comes.
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
        super().__init__(instructions=instructions(profile, language, earlier), tools=list(tools))
        self._greeting = greeting
        self._trace = trace
        self.profile = profile
        """What it goes by; what the store has may be newer."""
        self.answered_from = profile
        """What it went by when it began the answer that is being given."""
        self._language = language
        self._earlier = earlier

    async def on_enter(self) -> None:
        """Speak first. The greeting needs no tool, and asks for none."""
        options: dict[str, Any] = {"tool_choice": "none"}
        if self._trace is not None:
            self._trace.mark("greeting asked")
        self.session.generate_reply(instructions=self._greeting, **options)

    async def llm_node(
        self, chat_ctx: llm.ChatContext, tools: list[llm.Tool], model_settings: ModelSettings
    ) -> AsyncIterator[llm.ChatChunk | str | FlushSentinel]:
        """The framework's own, and what it is made from, and the moment of the first token."""
        self.answered_from = self.profile
        async for chunk in Agent.default.llm_node(self, chat_ctx, tools, model_settings):
            if self._trace is not None:
                self._trace.first_token()
                self._trace = None
            yield chunk

    async def know(self, profile: str) -> None:
        """Go on with a profile that has changed during the conversation, or could not be read before."""
        if profile != self.profile:
            self.profile = profile
            await self.update_instructions(instructions(profile, self._language, self._earlier))
