"""Half a character (a lone surrogate) or NUL in anything that a model or a person says never ends a conversation.

Clients of models send UTF-8, which has no form for half a character: one in the context fails every later request.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from livekit.agents import llm
from livekit.plugins import openai

from companion import Caller, use_caller
from companion.runtime import Runtime
from companion.voice.agent import CompanionAgent
from tests.real.models.openai_server import OpenAIServer, Reply
from tests.real.redis.redis_server import RedisServer
from tests.tools.conversation import Conversation, Userdata, conversation
from tests.wait import until
from tools import CacheTools, ProfileTools

pytestmark = pytest.mark.integration
ADA = Caller("ada", operator=True)
HALF = "Ada \ud83d."
CALLS = [
    ("updateUserProfile", {"profile": f"Name: {HALF}"}),
    ("rememberFact", {"fact": HALF}),
    ("recallFacts", {"query": HALF}),
    ("invalidateCache", {"pattern": f"user:{HALF}:*"}),
]


@asynccontextmanager
async def talking(server: OpenAIServer) -> AsyncIterator[Conversation]:
    """A conversation with the companion, whose model is ``server``."""
    agent = CompanionAgent(tools=[CacheTools(), ProfileTools()])
    async with openai.LLM(model="test", base_url=server.base_url, api_key="x", max_retries=0) as model:
        with use_caller(ADA):
            async with conversation(agent=agent, greeting="Greet.", model=model, userdata=Userdata(ADA)) as talk:
                await until(lambda: talk.session.history.messages())  # it has greeted
                yield talk


async def outputs(talk: Conversation, said: str) -> list[llm.FunctionCallOutput]:
    """What the tools answered while the companion answered ``said``."""
    events = (await talk.session.run(user_input=said)).events
    return [event.item for event in events if isinstance(event.item, llm.FunctionCallOutput)]


@pytest.mark.parametrize("raw", [False, True], ids=["escaped", "raw"])
@pytest.mark.parametrize(("tool", "arguments"), CALLS, ids=[tool for tool, _ in CALLS])
async def test_half_a_character_in_an_argument_is_answered(
    runtime: Runtime, tool: str, arguments: dict[str, Any], raw: bool
) -> None:
    call = Reply.calls((tool, json.dumps(arguments, ensure_ascii=not raw)))
    async with OpenAIServer(["Hello.", call, "Done.", "Still here."]) as server, talking(server) as talk:
        (output,) = await outputs(talk, "go on")
        assert not output.is_error, output.output
        assert "success" in json.loads(output.output)
        assert await outputs(talk, "are you there?") == []
        assert "Still here." in str(talk.session.history.items[-1])


@pytest.mark.parametrize("raw", [False, True], ids=["escaped", "raw"])
async def test_both_halves_of_a_character_are_the_character(runtime: Runtime, raw: bool) -> None:
    call = Reply.calls(("rememberFact", json.dumps({"fact": "likes \ud83d\ude00"}, ensure_ascii=not raw)))
    async with OpenAIServer(["Hello.", call, "Done."]) as server, talking(server) as talk:
        await outputs(talk, "remember it")
    assert [memory.text for memory in await runtime.store.search_memories("ada", "likes")] == ["likes 😀"]


async def test_half_a_character_in_what_is_said_ends_nothing(runtime: Runtime) -> None:
    replies = ["Hello.", "Half \ud83d of it.", Reply(text="\ud83d\ude00"), "Still here."]
    async with OpenAIServer(replies) as server, talking(server) as talk:
        await talk.session.run(user_input="mine is \udfff too")
        await talk.session.run(user_input="and then")
        await talk.session.run(user_input="are you there?")
    said = [item.text_content for item in talk.session.history.messages() if item.role == "assistant"]
    assert said[-3:] == ["Half \ufffd of it.", "😀", "Still here."]


async def test_what_another_program_wrote_into_the_cache_cannot_end_a_conversation(
    runtime: Runtime, redis: RedisServer
) -> None:
    redis.cli("SET", "user:ada:profile", '"Name: Ada \\ud83d"')
    replies = ["Hello.", Reply.call("getUserProfile"), "You are Ada.", "Still here."]
    async with OpenAIServer(replies) as server, talking(server) as talk:
        (output,) = await outputs(talk, "who am I?")
        assert json.loads(output.output)["profile"] == "Name: Ada \ufffd"
        output.output.encode()  # it is shown in the console, and in traces
        await outputs(talk, "are you there?")
    assert "Still here." in str(talk.session.history.items[-1])


async def test_what_the_database_holds_cannot_end_a_conversation(runtime: Runtime) -> None:
    async with OpenAIServer(["Hello.", "Still here."]) as server, talking(server) as talk:
        await talk.memory.known.set_profile("Name: \ud83d and \x00")
        await talk.session.run(user_input="are you there?")
        assert "Name: \ufffd and \ufffd" in server.requests[-1].instructions
