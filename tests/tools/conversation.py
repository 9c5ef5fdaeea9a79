"""A text session with a model that calls the tools named in its input."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, Agent, AgentSession, APIConnectOptions, llm


class PlayedLLM(llm.LLM[Any]):
    """A model whose replies are made by the class ``stream``."""

    stream: type[llm.LLMStream]

    def notice(self, chat_ctx: llm.ChatContext, tools: list[Any]) -> None:
        """Hook: called for each request with its context and tools."""

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: Any = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> llm.LLMStream:
        self.notice(chat_ctx, tools or [])
        return self.stream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class ObedientLLM(PlayedLLM):
    """Calls the tool of an input ``NAME {json}``; answers any other input, and tool results, with "Done."

    ``offered`` holds, for each turn, the names of the tools offered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.offered: list[set[str]] = []

    def notice(self, chat_ctx: llm.ChatContext, tools: list[Any]) -> None:
        self.offered.append({tool.info.name for tool in tools})


class _ObedientStream(llm.LLMStream):
    async def _run(self) -> None:
        delta = llm.ChoiceDelta(role="assistant")
        last = self._chat_ctx.items[-1]
        text = last.text_content or "" if isinstance(last, llm.ChatMessage) and last.role == "user" else ""
        name, _, arguments = text.partition(" ")
        if arguments.startswith("{"):
            call = llm.FunctionToolCall(name=name, arguments=arguments, call_id=uuid4().hex)
            delta.tool_calls = [call]
        else:
            delta.content = "Done."
        self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=delta))


ObedientLLM.stream = _ObedientStream


@dataclass(frozen=True)
class Person:
    """The attributes of a caller that the tools use."""

    user_id: Any
    operator: Any = False


@dataclass(frozen=True)
class Userdata:
    """Userdata with the attribute in which the tools look for the caller."""

    caller: Any


class Conversation:
    """An AgentSession whose model calls tools on request."""

    def __init__(self, session: AgentSession[Any], model: llm.LLM) -> None:
        self.session = session
        self.model = model

    @property
    def memory(self) -> Any:
        """What ``attach`` gave the session."""
        from companion.conversation.session_memory import memory_of

        memory = memory_of(self.session)
        assert memory is not None
        return memory

    @property
    def prompt(self) -> str:
        """The instructions and the memory block of the model's next request."""
        return f"{self.session.current_agent.instructions}\n\n{self.memory.text}"

    async def said_by(self, tool: str, /, **arguments: Any) -> str:
        """Have the model call ``tool`` and return the raw output. Fails if the tool failed."""
        result = await self.session.run(user_input=f"{tool} {json.dumps(arguments)}")
        result.expect.next_event().is_function_call(name=tool)
        output = result.expect.next_event().is_function_call_output().event().item
        assert not output.is_error, output.output
        return str(output.output)

    async def use(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Have the model call ``tool`` and return the parsed JSON output."""
        answer = json.loads(await self.said_by(tool, **arguments))
        assert isinstance(answer, dict)
        return answer


@asynccontextmanager
async def conversation(
    *tools: llm.Toolset,
    agent: Agent | None = None,
    model: llm.LLM | None = None,
    greeting: str | None = None,
    **userdata: Any,
) -> AsyncIterator[Conversation]:
    """A running text-only session. ``userdata=`` is the session's; without it there is none.

    With the companion, a memory of the caller in the userdata is attached; its turns are not stored.
    """
    model = model or ObedientLLM()
    session = AgentSession(llm=model, vad=None, turn_handling={"turn_detection": None}, **userdata)
    memory = await _attach(session, **userdata) if type(agent).__name__ == "CompanionAgent" else None
    async with session:
        await session.start(agent or Agent(instructions="Do as you are told.", tools=list(tools)))
        if memory is not None and greeting is not None:
            await memory.greet(greeting)
        yield Conversation(session, model)
    if memory is not None:
        await memory.aclose()


async def _attach(session: AgentSession[Any], userdata: Any = None) -> Any:
    # Here, because a test of the wheel uses this module where the companion has another name.
    from companion import Caller, attach
    from companion.runtime import acquire_runtime

    acquire_runtime()  # the test's, which it closes itself
    known = getattr(userdata, "caller", None)
    return await attach(session, caller=known if isinstance(known, Caller) else None, turns=False, wrap_up=False)
