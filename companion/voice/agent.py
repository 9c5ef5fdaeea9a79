"""Who the companion is: its instructions, and what it does when a conversation begins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from livekit.agents import Agent, FlushSentinel, ModelSettings, llm

from .tracing import StartTrace

PERSONA: Final = """\
You are a warm, attentive voice companion. You talk with one person, and you remember them.

## How you speak
Everything you say is spoken aloud: one to three short sentences, no lists, no markup, no emoji.
Never read out JSON, tool names, keys or ids; say what they mean in plain words.
Ask at most one question at a time. If you do not know something, say so.

## What you remember
When the person tells you something lasting about themselves, update their profile with the tool for it.
When they ask you to remember one thing, remember it as a fact. Look facts up when they ask about the past.
Use the cache tools only when the person asks about caching, statistics or stale data."""

GREETING: Final = "Greet the person now, before they have said anything: one or two short spoken sentences."

PROFILE_HEADING: Final = "## What you know about this person"
NOTHING_KNOWN: Final = "(nothing yet)"


def instructions(profile: str, language: str = "en", earlier: str = "") -> str:
    """The system prompt: the persona, the language, what is known about the person, and what was before."""
    speak = f'Speak the language with the code "{language}" unless the person speaks another one.'
    known = f"{PROFILE_HEADING}\n{profile.strip() or NOTHING_KNOWN}"
    before = f"\n\n## Before this conversation\n{earlier.strip()}" if earlier.strip() else ""
    return f"{PERSONA}\n\n## Language\n{speak}\n\n{known}{before}"


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
