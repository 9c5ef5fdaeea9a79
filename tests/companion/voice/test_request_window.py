"""Requests stay below a token budget, and what has left them is in the note that stands in for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from livekit.agents import AgentSession, RunContext, function_tool, llm
from livekit.plugins import openai

from companion.prompts import GREETING, RUNNING_SUMMARY_PROMPT
from companion.voice import request_window
from companion.voice.agent import CompanionAgent
from companion.voice.request_window import MAX_TOKENS, RequestWindow, estimate_tokens
from tests.companion.scripted import ScriptedLLM
from tests.real.models.openai_server import ChatRequest, OpenAIServer, Reply
from tests.wait import until

pytestmark = pytest.mark.integration
NOTE = "They have a cat called Momo."


def is_note(request: ChatRequest) -> bool:
    return RUNNING_SUMMARY_PROMPT in request.instructions


def size(context: llm.ChatContext) -> int:
    return sum(estimate_tokens(item) for item in context.items if item.type != "message" or item.role != "system")


def conversation(count: int, text: str = "word " * 60) -> llm.ChatContext:
    context = llm.ChatContext()
    context.add_message(role="system", content="Be kind.")
    context.add_message(role="assistant", content="Hello.")
    for number in range(count):
        context.add_message(role="user", content=f"turn {number} {text}")
        context.items.append(llm.FunctionCall(call_id=f"{number}", name="recallFacts", arguments="{}"))
        context.items.append(llm.FunctionCallOutput(call_id=f"{number}", output="[]", is_error=False))
        context.add_message(role="assistant", content=f"answer {number} {text}")
    context.add_message(role="user", content="And now?")
    return context


def texts(context: llm.ChatContext) -> str:
    return "\n".join(str(item.text_content) for item in context.messages())


# -- in a real session -------------------------------------------------------------------------------------------


class Cat(llm.Toolset):
    def __init__(self) -> None:
        super().__init__(id="cat")

    @function_tool
    async def feed(self, context: RunContext[Any]) -> str:
        """Feed the cat."""
        return json.dumps({"fed": True, "log": "meow " * 30})


def answer(body: dict[str, Any]) -> Reply | str:
    request = ChatRequest(body, {})
    if is_note(request):
        return NOTE
    if request.messages[-1]["role"] == "tool":
        return "She is fed now. " + "That is nice. " * 20
    return Reply.call("feed") if request.user_text.endswith("5") else "I see. " + "Tell me more. " * 20


@pytest.fixture
async def long_talk() -> AsyncIterator[tuple[AgentSession[Any], OpenAIServer]]:
    """A conversation of 200 turns, with a tool call in every tenth."""
    async with OpenAIServer(answer) as server:
        model = openai.LLM(model="any", api_key="test", base_url=server.base_url)
        session: AgentSession[Any] = AgentSession(llm=model, vad=None, turn_handling={"turn_detection": None})
        async with session:
            await session.start(CompanionAgent(tools=[Cat()]))
            session.generate_reply(instructions=GREETING, tool_choice="none")
            for number in range(200):
                await session.run(user_input=f"{'I tell you about my cat Momo. ' * 8}turn {number}")
            yield session, server
        await model.aclose()


async def test_two_hundred_turns(long_talk: tuple[AgentSession[Any], OpenAIServer]) -> None:
    session, server = long_talk
    notes = [request for request in server.requests if is_note(request)]
    answers = [request for request in server.requests if not is_note(request)]
    assert len(answers) == 1 + 200 + 20
    largest = max(len(json.dumps(request.messages)) for request in answers)
    assert largest < (MAX_TOKENS + 4_000) * 3, "instructions and note included"
    for request in answers[-50:]:
        assert NOTE in request.instructions
        assert request.messages[1]["role"] == "system"
        assert request.messages[2]["role"] == "user"
        calls = {call["id"] for message in request.messages for call in message.get("tool_calls") or ()}
        assert calls == {message["tool_call_id"] for message in request.messages if message["role"] == "tool"}
    noted = "\n".join(request.user_text for request in notes)
    last = [message for message in answers[-1].messages if message["role"] == "user"]
    kept = int(last[0]["content"].split()[-1])
    assert 5 < len(last) < 60
    assert all(f"turn {number}\n" in noted + "\n" for number in range(kept)), "what has left is in the notes"
    assert all(NOTE in request.user_text for request in notes[1:]), "each note is made from the one before"
    assert len(notes) < 30, "not at each turn"
    assert len(session.history.messages()) == 1 + 2 * 200, "the history keeps everything"


# -- what leaves, and what stays ---------------------------------------------------------------------------------


async def test_a_short_conversation_is_sent_as_it_is() -> None:
    window, context = RequestWindow(), conversation(5)
    assert window.fit(context, ScriptedLLM(NOTE)) is context
    await window.close()


async def test_the_older_turns_leave_when_the_note_on_them_is_made() -> None:
    window, context, model = RequestWindow(), conversation(22), ScriptedLLM(NOTE)
    assert request_window.SUMMARISE_AT < size(context) < MAX_TOKENS
    assert window.fit(context, model) is context, "no answer waits for the note"
    await until(lambda: window.fit(context, model) is not context)
    fitted = window.fit(context, model)
    assert size(fitted) < request_window.KEEP_TOKENS + 200
    assert texts(fitted).startswith("Be kind.\n## Earlier in this conversation")
    assert NOTE in texts(fitted)
    assert "turn 0 " not in texts(fitted)
    assert texts(fitted).endswith("And now?")
    assert len(model.asked) == 1
    await window.close()


@pytest.mark.parametrize("model", [None, ScriptedLLM(fails=RuntimeError("my secret")), ScriptedLLM("")])
async def test_without_a_note_the_budget_holds(model: ScriptedLLM | None, caplog: pytest.LogCaptureFixture) -> None:
    window, context = RequestWindow(), conversation(200)
    for _ in range(3):
        fitted = window.fit(context, model)
        assert size(fitted) < MAX_TOKENS
        assert "(no note yet)" in texts(fitted)
        assert texts(fitted).endswith("And now?")
        await asyncio.sleep(0.05)
    if model is not None:
        assert len(model.asked) == 3, "it is tried again"
        assert all("turn 0 " in texts(asked) for asked in model.asked), "with all that has left"
        assert max(len(texts(asked)) for asked in model.asked) < 40_000
    await window.close()


@pytest.mark.parametrize("end", ["user", "tool"])
async def test_a_turn_that_is_too_large_alone_is_shortened(end: str) -> None:
    window, context = RequestWindow(), conversation(2)
    huge = "begin " + "x" * 1_000_000 + " end"
    if end == "user":
        context.add_message(role="user", content=huge)
    else:
        context.items.append(llm.FunctionCall(call_id="9", name="recallFacts", arguments="{}"))
        context.items.append(llm.FunctionCallOutput(call_id="9", output=huge, is_error=False))
    fitted = window.fit(context, None)
    assert size(fitted) < MAX_TOKENS
    last = fitted.items[-1]
    text = str(last.text_content) if isinstance(last, llm.ChatMessage) else str(getattr(last, "output", ""))
    assert text.startswith("begin x")
    assert text.endswith("x end")
    assert len(str(context.items[-1])) > 1_000_000, "the history keeps it"
    await window.close()


@pytest.mark.parametrize("length", [300, 4_000, 100_000])
async def test_a_turn_of_many_tool_calls_is_shortened(length: int) -> None:
    context = conversation(2)
    for number in range(30):
        arguments = json.dumps({"profile": "ü" * length})
        context.items.append(llm.FunctionCall(call_id=f"more {number}", name="updateUserProfile", arguments=arguments))
        context.items.append(llm.FunctionCallOutput(call_id=f"more {number}", output="x" * length, is_error=False))
    before = [item.model_dump() for item in context.items]
    sent = RequestWindow().fit(context, None)
    assert size(sent) <= MAX_TOKENS
    calls = [item for item in sent.items if item.type == "function_call"]
    assert len([call for call in calls if call.call_id.startswith("more")]) == 30
    for call in calls:
        assert isinstance(json.loads(call.arguments), dict)
    assert [item.model_dump() for item in context.items] == before


async def test_the_instructions_of_a_greeting_stay() -> None:
    context = llm.ChatContext()
    context.add_message(role="system", content="Be kind. " * 3_000)
    context.add_message(role="system", content="Greet the person.")
    assert RequestWindow().fit(context, None) is context
