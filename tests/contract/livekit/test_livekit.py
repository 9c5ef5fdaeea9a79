"""The behaviour of LiveKit's sessions and agents that the companion depends on. See docs/upgrading.md."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
from livekit.agents import Agent, AgentSession, RunContext, function_tool, llm

from tests.contract.livekit.livekit_stand_in import PlayedLLM, calls, talking

pytestmark = pytest.mark.integration
caller: ContextVar[str] = ContextVar("caller", default="unknown")


# -- a session's events --------------------------------------------------------------------------------------


async def test_messages_are_announced_in_order() -> None:
    """``companion.conversation.turn_log``: every message in order, with id, role, text and time.

    The id is the turn's key in the store; a missing or repeated one would lose turns.
    """
    began = time.time()
    async with talking(Agent(instructions="echo")) as talk:
        await talk.say("hello")
        await talk.say("again")
    messages = [item for item in talk.items if isinstance(item, llm.ChatMessage)]
    assert [(one.role, (one.text_content or "").strip()) for one in messages] == [
        ("user", "hello"),
        ("assistant", "You said hello."),
        ("user", "again"),
        ("assistant", "You said again."),
    ]
    assert len({one.id for one in messages}) == 4
    assert all(began - 1 <= one.created_at <= time.time() + 1 for one in messages)


async def test_executed_tools_are_announced_with_their_outputs() -> None:
    """``companion.console.conversation`` shows each call, and ``/trace`` its whole output."""

    @function_tool
    async def weather(city: str) -> str:
        """The weather."""
        return f'{{"city": "{city}"}}'

    model = PlayedLLM(calls("weather", '{"city": "Bern"}'))
    async with talking(Agent(instructions="-", tools=[weather]), model) as talk:
        await talk.say("go")
    ((call, output),) = talk.tools
    assert (call.name, call.arguments, output.output) == ("weather", '{"city": "Bern"}', '{"city": "Bern"}')


# -- the agent -----------------------------------------------------------------------------------------------------


class Greeter(Agent):
    """Greets on entering, as ``companion.voice.agent`` does."""

    async def on_enter(self) -> None:
        self.session.generate_reply(instructions="greet the person", tool_choice="none")


async def test_the_greetings_instructions_are_the_last_item_a_system_message() -> None:
    """``companion.offline.replies`` recognises the request for a greeting by it, and by ``tool_choice``.

    In another place or role, the offline voice would answer instead of greeting.
    """
    async with talking(Greeter(instructions="be kind")) as talk:
        await talk.spoken.wait()
    (asked,) = talk.model.asked
    assert (asked.last.type, asked.last.role) == ("message", "system")
    assert "greet the person" in asked.last.text_content
    assert asked.tool_choice == "none"


async def test_the_prompt_is_the_first_system_message() -> None:
    """``companion.offline.replies`` recognises by it what it is asked for."""
    async with talking(Agent(instructions="be kind")) as talk:
        await talk.say("hello")
    first = talk.model.asked[0].items[0]
    assert (first.type, first.role, first.text_content) == ("message", "system", "be kind")


async def test_instructions_that_change_in_a_tool_hold_from_the_next_answer_on() -> None:
    """``companion.voice.agent`` (``know``): an updated profile is in the prompt of the next reply."""

    class Learner(Agent):
        @function_tool
        async def learn(self, context: RunContext[Any]) -> str:
            """Learn something."""
            await context.session.current_agent.update_instructions("you know her name")
            return "learnt"

    async with talking(Learner(instructions="you know nothing"), PlayedLLM(calls("learn"))) as talk:
        await talk.say("go")
        await talk.say("and now?")
    prompts = [asked.items[0].text_content for asked in talk.model.asked]
    assert prompts[0] == "you know nothing"
    assert prompts[-1] == "you know her name"


async def test_llm_node_may_be_an_async_generator_around_the_default() -> None:
    """``companion.voice.agent`` wraps the default node to time the first token."""
    passed: list[Any] = []

    class Counting(Agent):
        async def llm_node(self, chat_ctx: Any, tools: Any, model_settings: Any) -> AsyncIterator[Any]:
            async for chunk in Agent.default.llm_node(self, chat_ctx, tools, model_settings):
                passed.append(chunk)
                yield chunk

    async with talking(Counting(instructions="-")) as talk:
        await talk.say("hello")
    assert len(passed) >= 3
    assert all(isinstance(chunk, llm.ChatChunk) for chunk in passed)
    assert (talk.items[-1].text_content or "").strip() == "You said hello."


# -- the caller ------------------------------------------------------------------------------------------------


async def test_a_context_variable_set_before_start_reaches_the_agent_and_its_tools() -> None:
    """``companion.identity`` (``use_caller``): set around ``session.start``, it is visible in hooks, nodes and tools.

    Otherwise the session would have no caller, or, with a module's global, another session's.
    """
    seen: dict[str, str] = {}

    class Curious(Agent):
        async def on_enter(self) -> None:
            seen["on_enter"] = caller.get()
            self.session.generate_reply(user_input="go")

        async def llm_node(self, chat_ctx: Any, tools: Any, model_settings: Any) -> AsyncIterator[Any]:
            seen["llm_node"] = caller.get()
            async for chunk in Agent.default.llm_node(self, chat_ctx, tools, model_settings):
                yield chunk

        @function_tool
        async def ask(self) -> str:
            """Ask who is calling."""
            seen["tool"] = caller.get()
            return "asked"

    token = caller.set("ada")
    async with talking(Curious(instructions="-"), PlayedLLM(calls("ask"))) as talk:
        caller.reset(token)
        await talk.spoken.wait()
    assert seen == {"on_enter": "ada", "llm_node": "ada", "tool": "ada"}


async def test_userdata_is_what_was_given() -> None:
    """``tools.cache_tools`` reads the caller from the session's userdata, never from an argument."""
    session: AgentSession[Any] = AgentSession(userdata={"caller": "ada"})
    assert session.userdata == {"caller": "ada"}


async def test_userdata_that_was_not_given_raises_value_error() -> None:
    """``tools.cache_tools`` (``caller_of_session``): a foreign agent may have no userdata.

    Another exception would reach the model as an internal error, instead of "I do not know who you are".
    """
    with pytest.raises(ValueError, match="userdata"):
        _ = AgentSession().userdata


async def test_a_tool_finds_the_agent_that_talks() -> None:
    """``tools.profile_tools`` (``context.session.current_agent``): the tool updates this agent's prompt."""
    found: list[Any] = []

    class Findable(Agent):
        @function_tool
        async def find(self, context: RunContext[Any]) -> str:
            """Find the agent."""
            found.append((context.session.current_agent, context.userdata))
            return "found"

    agent = Findable(instructions="-")
    async with talking(agent, PlayedLLM(calls("find")), userdata="ada") as talk:
        await talk.say("go")
    assert found == [(agent, "ada")]
