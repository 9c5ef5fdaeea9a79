"""The behaviour of LiveKit's models that the companion depends on. See docs/upgrading.md."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from livekit.agents import Agent, APIConnectionError, function_tool, inference, llm, stt, tts

from tests.contract.livekit.livekit_stand_in import Asked, PlayedLLM, echo, talking

pytestmark = pytest.mark.integration


async def test_a_model_can_be_asked_without_a_session() -> None:
    """``companion.conversation.opening.follow_up`` and ``companion.conversation.summary`` use ``collect().text``."""
    question = llm.ChatContext.empty()
    question.add_message(role="system", content="be brief")
    question.add_message(role="user", content="hello")
    async with PlayedLLM().chat(chat_ctx=question) as stream:
        answer = await stream.collect()
    assert answer.text.strip() == "You said hello."
    assert [(item.type, item.role) for item in question.items] == [("message", "system"), ("message", "user")]


async def test_a_stream_has_its_context_and_tools_and_sends_by_its_channel() -> None:
    """``companion.offline.llm`` uses the private ``_run``, ``_chat_ctx``, ``_tools`` and ``_event_ch``.

    So does ``PlayedLLM``. ``_tools`` holds function tools with a name, those of a Toolset included.
    """
    seen: list[Asked] = []

    class Box(llm.Toolset):
        @function_tool(name="inTheBox")
        async def boxed(self) -> str:
            """Something in a box."""
            return ""

    def note(asked: Asked) -> str:
        seen.append(asked)
        return echo(asked)

    async with talking(Agent(instructions="-", tools=[Box(id="box")]), PlayedLLM(note)) as talk:
        await talk.say("hello")
    (asked,) = seen
    assert asked.last.text_content == "hello"
    assert [(type(tool), tool.info.name) for tool in asked.tools if isinstance(tool, llm.FunctionTool)] == [
        (type(asked.tools[0]), "inTheBox")
    ]


async def test_four_errors_of_a_model_end_every_session_that_has_it() -> None:
    """``companion.runtime`` (``acquire_model``) therefore gives each conversation a model.

    If sessions stop sharing a model's errors, one model per process is enough.
    """
    model = PlayedLLM(lambda _: APIConnectionError("away", retryable=False))
    closed: list[str] = []
    async with talking(Agent(instructions="-"), model) as one, talking(Agent(instructions="-"), model) as other:
        one.session.on("close", lambda _: closed.append("one"))
        other.session.on("close", lambda _: closed.append("other"))
        for _ in range(4):
            with suppress(APIConnectionError):
                await one.say("hello")
    assert sorted(closed) == ["one", "other"]


async def test_openais_models_take_these_arguments() -> None:
    """``companion.voice.models``: the key and the URL come from the companion's settings."""
    from livekit.plugins import openai  # only here: a plugin may not fit the framework

    options: dict[str, Any] = {"api_key": "key", "base_url": "http://127.0.0.1:9"}
    model = openai.LLM(model="gpt-4.1-mini", **options)
    assert isinstance(model, llm.LLM)
    assert isinstance(openai.STT(language="de", **options), stt.STT)
    assert isinstance(openai.TTS(**options), tts.TTS)
    await model.aclose()


async def test_inference_takes_a_name_and_the_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """``companion.voice.models``: Inference reads the worker's own variables."""
    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "s" * 32)
    assert isinstance(inference.LLM("openai/gpt-4.1-mini"), llm.LLM)
    assert isinstance(inference.STT("deepgram/nova-3", language="de"), stt.STT)
    assert isinstance(inference.TTS("cartesia/sonic-3", language="de"), tts.TTS)
