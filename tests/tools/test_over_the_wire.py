"""The tools as a model provider's real client sends them, and calls as it receives them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from livekit.plugins import openai

from companion import Caller
from companion.runtime import Runtime
from companion.voice.agent import CompanionAgent
from tests.real.models.openai_server import OpenAIServer, Reply
from tests.real.redis.redis_server import RedisServer
from tests.tools.conversation import Person, Userdata, conversation
from tools import CacheTools, ProfileTools

pytestmark = pytest.mark.integration


def parameters(tool: dict[str, Any]) -> dict[str, Any]:
    """The names of a tool's parameters and their types; all of them required, and described."""
    schema = tool["parameters"]
    assert schema["type"] == "object"
    assert sorted(schema.get("required", [])) == sorted(schema["properties"])
    assert all(one["description"] for one in schema["properties"].values())
    return {name: one["type"] for name, one in schema["properties"].items()}


@pytest.mark.parametrize("strict", [True, False])
async def test_the_cache_tools(redis: RedisServer, strict: bool) -> None:
    redis.cli("MSET", "user:abc-123:profile", "x", "user:abc-123:settings", "x", "user:other:profile", "x")
    script = [
        Reply.call("getRedisCacheStats"),
        Reply.call("invalidateCache", pattern="user:*:profile", user_id="other"),
        Reply.calls(("clearUserCache", "")),  # some models send an empty string for no arguments
        "All done.",
    ]
    async with OpenAIServer(script) as server:
        model = openai.LLM(model="gpt-4.1", base_url=server.base_url, api_key="test", _strict_tool_schema=strict)
        async with model, conversation(CacheTools(), model=model, userdata=Userdata(Person("abc-123"))) as talk:
            await talk.session.run(user_input="How is the cache? Drop my profile from it, then the rest.")

    tools = server.requests[0].tools
    assert {name: parameters(tool) for name, tool in tools.items()} == {
        "getRedisCacheStats": {},
        "clearUserCache": {},
        "invalidateCache": {"pattern": "string"},
    }
    for tool in tools.values():
        assert "Use it" in tool["description"], "a model needs to be told when"

    stats, invalidated, cleared = map(json.loads, server.requests[-1].tool_outputs)
    assert stats == {
        "enabled": True,
        "connected": True,
        "hit_rate": "0.0%",
        "cache_hits": 0,
        "cache_misses": 0,
        "connection_errors": 0,
        "redis_memory": stats["redis_memory"],
        "status": "healthy",
    }
    assert invalidated == {
        "success": True,
        "deleted_keys": 1,
        "message": "Invalidated 1 cache entries matching 'user:*:profile'",
    }
    assert cleared == {"success": True, "deleted_keys": 1, "message": "Cleared 1 cached entries for user abc-123"}
    assert redis.cli("KEYS", "user:*") == ["user:other:profile"]


async def test_calls_that_a_model_got_wrong_do_nothing_and_are_answered(redis: RedisServer) -> None:
    redis.cli("SET", "user:abc-123:profile", "x")
    script = [
        Reply.calls(
            ("invalidateCache", "{}"),
            ("invalidateCache", '{"pattern": ["*"]}'),
            ("invalidateCache", "not JSON"),
            ("clearEverything", "{}"),
        ),
        "That did not work.",
    ]
    async with OpenAIServer(script) as server:
        model = openai.LLM(model="gpt-4.1", base_url=server.base_url, api_key="test")
        operator = Userdata(Person("abc-123", operator=True))
        async with model, conversation(CacheTools(), model=model, userdata=operator) as talk:
            await talk.session.run(user_input="Drop everything.")
    assert len(server.requests[-1].tool_outputs) == 4
    assert all(server.requests[-1].tool_outputs)
    assert set(redis.cli("KEYS", "*")) - {"system:server"} == {"user:abc-123:profile"}


async def test_the_companion_learns_during_the_conversation(runtime: Runtime) -> None:
    script = [
        "Good morning.",
        Reply.calls(("updateUserProfile", {"profile": "Name: Zoë"}), ("rememberFact", {"fact": "Ada visits."})),
        Reply.call("recallFacts", query="Ada"),
        "Ada visits, Zoë.",
    ]
    async with OpenAIServer(script) as server:
        model = openai.LLM(model="gpt-4.1", base_url=server.base_url, api_key="test")
        agent = CompanionAgent(tools=[CacheTools(), ProfileTools()])
        async with (
            model,
            conversation(agent=agent, greeting="Greet them.", model=model, userdata=Userdata(Caller("zoe"))) as talk,
        ):
            await talk.session.run(user_input="I am Zoë, and Ada visits. Who visits?")

    greeting, question, _, last = server.requests
    assert not {"clearUserCache", "invalidateCache", "updateUserProfile", "rememberFact"} & set(greeting.tools)
    assert "Greet them." in greeting.instructions
    schemas = {name: parameters(tool) for name, tool in question.tools.items()}
    assert schemas["getUserProfile"] == {}
    lines, text = ["array", "null"], ["string", "null"]
    assert schemas["updateUserProfile"] == {
        "add": lines,
        "remove": lines,
        "replace": lines,
        "profile": text,
        "confirm": ["boolean", "null"],
    }
    assert schemas["rememberFact"] == {"fact": "string", "instead_of": text}
    assert schemas["recallFacts"] == {"query": "string"}
    assert not any("user_id" in names for names in schemas.values()), "who is meant is never the model's to say"
    assert "(nothing yet)" in question.instructions
    assert "Name: Zoë" in last.instructions, "what was just learnt counts at once"
    assert json.loads(last.tool_outputs[-1]) == {"success": True, "facts": ["Ada visits."]}


async def test_two_updates_in_one_answer_lose_nothing(runtime: Runtime) -> None:
    script = [
        "Good morning.",
        Reply.calls(
            ("updateUserProfile", {"profile": "Name: Ada\nAllergic to: nuts"}),
            ("updateUserProfile", {"profile": "Name: Ada\nLives in: Oslo"}),
        ),
        "I know.",
    ]
    async with OpenAIServer(script) as server:
        model = openai.LLM(model="gpt-4.1", base_url=server.base_url, api_key="test")
        agent = CompanionAgent(tools=[ProfileTools()])
        async with (
            model,
            conversation(agent=agent, greeting="Greet them.", model=model, userdata=Userdata(Caller("ada"))) as talk,
        ):
            await talk.session.run(user_input="I am Ada, from Oslo, and nuts make me ill.")
    lines = {"Name: Ada", "Allergic to: nuts", "Lives in: Oslo"}
    assert set((await runtime.store.get_profile("ada") or "").splitlines()) == lines
    assert all(line in server.requests[-1].instructions for line in lines)
    assert all(json.loads(output)["success"] for output in server.requests[-1].tool_outputs)


async def test_after_everything_was_erased_no_request_holds_what_was_said_before(runtime: Runtime) -> None:
    script = [
        "Good morning.",
        Reply.call("updateUserProfile", add=["Name: Zoë"]),
        "I know, Zoë.",
        Reply.call("forgetEverything", confirm=None),
        "Shall I?",
        Reply.call("forgetEverything", confirm=True),
        "It is done.",
        "A new day.",
    ]
    async with OpenAIServer(script) as server:
        model = openai.LLM(model="gpt-4.1", base_url=server.base_url, api_key="test")
        agent = CompanionAgent(tools=[ProfileTools()])
        async with (
            model,
            conversation(agent=agent, greeting="Greet them.", model=model, userdata=Userdata(Caller("zoe"))) as talk,
        ):
            for words in ("I am Zoë", "Oublie tout", "Oui", "Bonjour"):
                await talk.session.run(user_input=words)
    assert await runtime.store.get_profile("zoe") is None
    assert json.loads(server.requests[-2].tool_outputs[-1])["success"] is True
    last = str(server.requests[-1].messages)
    assert "Bonjour" in last
    assert "Zo" not in last
