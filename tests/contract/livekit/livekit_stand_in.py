"""A scripted model, and a conversation in text with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from livekit.agents import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    Agent,
    AgentSession,
    APIConnectOptions,
    ConversationItemAddedEvent,
    llm,
)

SOON = 10.0
"""Seconds after which a test gives up."""


@dataclass
class Asked:
    """The arguments of one call of ``chat``."""

    items: list[Any]
    tools: list[Any]
    tool_choice: Any

    @property
    def last(self) -> Any:
        """The newest item."""
        return self.items[-1]


Play = Callable[[Asked], str | llm.FunctionToolCall | Exception]


def echo(asked: Asked) -> str:
    """Repeat the last message."""
    return f"You said {asked.last.text_content}." if isinstance(asked.last, llm.ChatMessage) else "Done."


def calls(name: str, arguments: str = "{}") -> Play:
    """Call a tool, and say "Done." after its output."""

    def play(asked: Asked) -> str | llm.FunctionToolCall:
        if isinstance(asked.last, llm.FunctionCallOutput):
            return "Done."
        return llm.FunctionToolCall(name=name, arguments=arguments, call_id="call_1")

    return play


class PlayedLLM(llm.LLM[Any]):
    """Replies with the result of ``play``, and records its requests."""

    def __init__(self, play: Play = echo) -> None:
        super().__init__()
        self.play = play
        self.asked: list[Asked] = []

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        tool_choice: Any = NOT_GIVEN,
        **_: Any,
    ) -> llm.LLMStream:
        self.asked.append(Asked(list(chat_ctx.items), list(tools or []), tool_choice))
        return _Stream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Stream(llm.LLMStream):
    """Uses the private names of its base class, as ``companion.offline.llm`` does."""

    async def _run(self) -> None:
        model: Any = self._llm
        said = model.play(Asked(list(self._chat_ctx.items), list(self._tools), NOT_GIVEN))
        if isinstance(said, Exception):
            raise said
        if isinstance(said, str):
            for word in said.split():
                self._send(llm.ChoiceDelta(role="assistant", content=f"{word} "))
        else:
            self._send(llm.ChoiceDelta(role="assistant", tool_calls=[said]))

    def _send(self, delta: llm.ChoiceDelta) -> None:
        self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=delta))


@dataclass
class Talk:
    """A running session and its events."""

    session: AgentSession[Any]
    model: PlayedLLM
    items: list[Any] = field(default_factory=list)
    tools: list[Any] = field(default_factory=list)
    spoken: asyncio.Event = field(default_factory=asyncio.Event)

    def on_item(self, event: ConversationItemAddedEvent) -> None:
        """The session announces an item."""
        self.items.append(event.item)
        if isinstance(event.item, llm.ChatMessage) and event.item.role == "assistant":
            self.spoken.set()

    async def say(self, text: str) -> Any:
        """Say something, and wait for the answer."""
        return await self.session.run(user_input=text)

    @property
    def offered(self) -> list[set[str]]:
        """The names of the tools that the model was offered, for each time it was asked."""
        return [{tool.info.name for tool in asked.tools} for asked in self.model.asked]


@asynccontextmanager
async def talking(agent: Agent, model: PlayedLLM | None = None, **options: Any) -> AsyncIterator[Talk]:
    """A session as the entrypoint makes it without a voice: in text."""
    model = model or PlayedLLM()
    options = {"turn_handling": {"turn_detection": None}, **options}
    session: AgentSession[Any] = AgentSession(llm=model, vad=None, **options)
    session.input.set_audio_enabled(False)
    session.output.set_audio_enabled(False)
    talk = Talk(session, model)
    session.on("conversation_item_added", talk.on_item)
    session.on("function_tools_executed", lambda event: talk.tools.extend(event.zipped()))
    async with asyncio.timeout(SOON), session:
        await session.start(agent)
        yield talk
