"""A memory for any agent: stock agents, hand-offs, tasks, speech-to-speech models, and programs with userdata."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from livekit.agents import Agent, AgentSession, AgentTask, RunContext, function_tool, llm

from cache import get_redis_cache, keys
from companion import Caller, attach
from companion.conversation.hook import BLOCK_ID
from companion.conversation.session_memory import SessionMemory
from companion.prompts import PROFILE_HEADING
from companion.runtime import Runtime, acquire_runtime
from tests.contract.livekit.livekit_stand_in import PlayedLLM
from tests.contract.livekit.realtime_stand_in import SilentRealtime
from tests.wait import until
from tools import CacheTools, MemoryTools

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("patient")]
ADA = "Name: Ada"


def play(asked: Any) -> str | llm.FunctionToolCall:
    """Call the tool of "NAME {json}", and answer anything else."""
    name, _, arguments = (getattr(asked.last, "text_content", None) or "").partition(" ")
    if arguments.startswith("{"):
        return llm.FunctionToolCall(name=name, arguments=arguments, call_id="call_1")
    return "Done."


@dataclass
class Call:
    """A running session with a memory."""

    session: AgentSession[Any]
    memory: SessionMemory
    model: Any

    @property
    def blocks(self) -> list[int]:
        """How many blocks each request held."""
        return [[item.id for item in asked.items].count(BLOCK_ID) for asked in self.model.asked]

    @property
    def handed_over(self) -> int:
        """How many agents were announced."""
        return sum(isinstance(item, llm.AgentHandoff) for item in self.session.history.items)

    @property
    def last(self) -> str:
        """The last request."""
        return str([getattr(item, "text_content", "") for item in self.model.asked[-1].items])

    async def say(self, text: str, **tool: Any) -> Any:
        """Say something, or have a tool called; the output of the tool."""
        events = (await self.session.run(user_input=f"{text} {json.dumps(tool)}" if tool else text)).events
        outputs = [event.item.output for event in events if isinstance(event.item, llm.FunctionCallOutput)]
        return json.loads(outputs[-1]) if outputs else None


@asynccontextmanager
async def calling(
    agent: Agent, *, model: Any = None, session: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Call]:
    """A call of Ada with an agent in text, to which a memory is attached."""
    model = model or PlayedLLM(play)
    speech: AgentSession[Any] = AgentSession(
        llm=model, vad=None, turn_handling={"turn_detection": None}, **(session or {})
    )
    acquire_runtime()  # the test's, which it closes itself
    memory = await attach(speech, **{"caller": Caller("ada")} | options)
    async with speech:
        await speech.start(agent)
        yield Call(speech, memory, model)
    await memory.aclose()


@pytest.fixture
async def known(runtime: Runtime) -> Runtime:
    """Ada has been here before."""
    await runtime.store.save_profile("ada", ADA)
    return runtime


# -- requests ------------------------------------------------------------------------------------------------------


async def test_each_request_holds_one_block_and_no_history_does(known: Runtime) -> None:
    agent = Agent(instructions="Be kind.", tools=[MemoryTools()])
    async with calling(agent) as call:
        await call.say("hello")
        assert ADA in call.last
        assert (await call.say("updateUserProfile", add=["Likes: chess"]))["success"]
        assert "Likes: chess" in call.last, "the step after the tool knows it"
        await call.say("bye")
        assert "Likes: chess" in call.last
        items = [*call.session.history.items, *agent.chat_ctx.items]
        assert call.blocks == [1] * 4
        assert not any(item.id == BLOCK_ID or PROFILE_HEADING in str(item) for item in items)
        assert agent.instructions == "Be kind."
    assert "llm_node" not in vars(agent), "the agent is given back as it was"


async def test_hand_offs_and_back(known: Runtime) -> None:
    class Desk(Agent):
        other: Desk

        @function_tool
        async def hand_over(self) -> Any:
            """Hand over."""
            return self.other, json.dumps("done")

    first, second = Desk(instructions="first"), Desk(instructions="second")
    first.other, second.other = second, first
    async with calling(first) as call:
        for agent in (second, first, second):
            await call.say("hand_over {}")
            await call.say("hello")
            assert call.session.current_agent is agent
            assert agent.instructions in call.last
        assert set(call.blocks) == {1}


@pytest.mark.parametrize("tasks", [False, True])
async def test_a_task_has_the_profile_in_its_prompt_only_where_tasks_is_set(known: Runtime, tasks: bool) -> None:
    class Ask(AgentTask[str]):
        async def on_enter(self) -> None:
            await self.session.generate_reply(instructions="ask the thing")
            self.complete("answered")

    class Asking(Agent):
        @function_tool
        async def ask(self) -> str:
            """Ask."""
            return json.dumps(await Ask(instructions="a task"))

    agent = Asking(instructions="be kind")
    async with calling(agent, tasks=tasks) as call:
        await call.say("ask {}")
        await until(lambda: call.session.current_agent is agent and call.handed_over == 3)
        await call.say("hello")
        asked = [[str(item) for item in one.items] for one in call.model.asked]
    of_task = [any("ask the thing" in item for item in items) for items in asked]
    in_prompt = [any(PROFILE_HEADING in item for item in items) for items in asked]
    assert in_prompt == [tasks or not task for task in of_task]
    assert True in of_task


async def test_the_agents_own_hooks_run(known: Runtime) -> None:
    class Own(Agent):
        async def on_enter(self) -> None:
            ran.append("on_enter")

        async def llm_node(self, chat_ctx: Any, tools: Any, model_settings: Any) -> AsyncIterator[Any]:
            ran.append("llm_node" if any(item.id == BLOCK_ID for item in chat_ctx.items) else "nothing known")
            async for chunk in Agent.default.llm_node(self, chat_ctx, tools, model_settings):
                yield chunk

    ran: list[str] = []
    plain = Agent(instructions="-")
    plain.llm_node = lambda *_: "plain"  # type: ignore[assignment,method-assign]  # as a program may do
    own = plain.llm_node
    async with calling(Own(instructions="-")) as call:
        await call.say("hello")
        assert ran == ["on_enter", "llm_node"]
        call.session.update_agent(plain)
        await until(lambda: call.handed_over == 2)
        await call.say("hello")
        assert call.session.history.messages()[-1].text_content == "plain"
    assert plain.llm_node is own


@pytest.mark.parametrize("given", [{}, {"userdata": {"of": "mine"}}], ids=["none", "a dict"])
async def test_userdata_and_tools_are_the_programs(known: Runtime, given: dict[str, Any]) -> None:
    tools: list[Any] = [MemoryTools(), CacheTools()]
    await (await get_redis_cache()).set(keys.settings("ada"), {"a": 1})
    await (await get_redis_cache()).set(keys.settings("bob"), {"b": 1})
    async with calling(Agent(instructions="-"), session={"tools": tools, **given}) as call:
        assert (await call.say("getUserProfile {}"))["profile"] == ADA
        cleared = await call.say("clearUserCache {}")
        assert (cleared["success"], cleared["message"].endswith("for user ada")) == (True, True)
        assert call.session.tools == tools
        if given:
            assert call.session.userdata == {"of": "mine"}
        else:
            with pytest.raises(ValueError, match="userdata"):
                _ = call.session.userdata
    assert await (await get_redis_cache()).exists(keys.settings("bob")) == 1


async def test_the_caller_of_the_cache_tools_comes_from_the_argument_the_memory_and_the_userdata(
    known: Runtime,
) -> None:
    bob = SimpleNamespace(user_id="bob", operator=False)
    userdata = {"userdata": SimpleNamespace(caller=bob)}
    for tools, options, user in (
        (CacheTools(caller=lambda _: bob), {}, "bob"),
        (CacheTools(), {}, "ada"),
        (CacheTools(), {"caller": None}, None),
    ):
        async with calling(Agent(instructions="-", tools=[tools]), session=userdata, **options) as call:
            cleared = await call.say("clearUserCache {}")
            assert cleared["message"].endswith(f"for user {user}") is (user is not None)
            assert cleared["success"] is (user is not None)


# -- speech to speech ----------------------------------------------------------------------------------------------


async def test_a_realtime_model_has_the_profile_in_its_instructions(known: Runtime) -> None:
    agents = [Agent(instructions="first"), Agent(instructions="second")]
    async with calling(agents[0], model=SilentRealtime()) as call:
        for number, name in enumerate(("first", "second", "first"), 1):
            if number > 1:
                call.session.update_agent(agents[number % 2 - 1])
            await until(lambda number=number: call.handed_over == number)
            await until(lambda name=name: call.model.prompts[-1].startswith(f"{name}\n\n{PROFILE_HEADING}"))
            assert call.model.prompts[-1].count(PROFILE_HEADING) == call.model.prompts[-1].count(ADA) == 1
        await call.memory.known.set_profile("Name: Zoë")
        assert "Name: Zoë" in call.model.prompts[-1]
        assert ADA not in call.model.prompts[-1]
        await call.memory.known.forget_everything()
        assert "Zoë" not in call.model.prompts[-1]


async def test_a_realtime_model_that_cannot_change_has_the_block_when_its_agent_starts(known: Runtime) -> None:
    async with calling(Agent(instructions="first"), model=SilentRealtime(mutable=False)) as call:
        await call.memory.known.set_profile("Name: Zoë")
        call.session.update_agent(Agent(instructions="second"))
        await until(lambda: len(call.model.prompts) == 2)
    first, second = call.model.prompts
    assert first.startswith(f"first\n\n{PROFILE_HEADING}")
    assert ADA in first
    assert second.startswith(f"second\n\n{PROFILE_HEADING}")
    assert "Name: Zoë" in second
    async with calling(Agent(instructions="first"), model=SilentRealtime(mutable=False), caller=None) as call:
        pass
    assert call.model.prompts == ["first"]


# -- greeting, turns, end ------------------------------------------------------------------------------------------


async def test_a_stock_agent_remembers_across_two_calls(runtime: Runtime) -> None:
    async with calling(Agent(instructions="-", tools=[MemoryTools()])) as call:
        await call.memory.greet("Greet the user.")
        await until(lambda: call.session.history.messages())
        assert "Greet the user." in call.last
        assert "## First meeting" in call.last
        assert call.model.asked[0].tools == []
        await call.say("rememberFact", fact="The key is under the mat.")
        await call.say("updateUserProfile", add=[ADA])
        await call.say("I must go")
    turns = await runtime.store.recent_turns("ada")
    assert [turn.role for turn in turns] == ["assistant", *["user", "assistant"] * 3]
    assert (await runtime.store.get_state("ada") or {})["conversations"] == 1
    async with calling(Agent(instructions="-")) as call:
        await call.memory.greet("Greet the user.")
        await until(lambda: call.session.history.messages())
        assert "## Back after a dropped call" in call.last
        assert "I must go" in call.last
        assert ADA in call.last


async def test_each_part_can_be_switched_off(known: Runtime) -> None:
    await known.store.save_state("ada", {"conversations": 4, "stage": "acquainted"})
    off = {"turns": False, "opening": False, "wrap_up": False}
    async with calling(Agent(instructions="-"), profile=False, **off) as call:
        await call.memory.greet("Greet.")
        await until(lambda: call.session.history.messages())
        assert "acquainted" in call.last
        assert ADA not in call.last
        assert "## First meeting" not in call.last
    async with calling(Agent(instructions="-"), earlier=False, **off) as call:
        await call.say("hello")
        assert "acquainted" not in call.last
        assert ADA in call.last
    async with calling(Agent(instructions="-"), earlier=False, profile=False, **off) as call:
        await call.say("hello")
        assert call.blocks == [0]
    assert await known.store.recent_turns("ada") == []
    assert (await known.store.get_state("ada") or {})["conversations"] == 4


async def test_an_unknown_caller_has_no_memory_and_leaves_none(known: Runtime) -> None:
    async with calling(Agent(instructions="-", tools=[MemoryTools()]), caller=None) as call:
        await call.memory.greet("Greet.")
        await until(lambda: call.session.history.messages())
        assert (await call.say("getUserProfile {}"))["success"] is False
        assert set(call.blocks) == {0}
    assert await known.store.recent_turns("ada") == []


async def test_only_one_memory_is_attached(known: Runtime) -> None:
    async with calling(Agent(instructions="-")) as call:
        with pytest.raises(ValueError, match="memory already"):
            await attach(call.session, caller=Caller("ada"))


async def test_what_a_program_reads_itself_is_the_callers(known: Runtime) -> None:
    """In the greeting and its node; elsewhere a program says ``use_caller(memory.caller)``."""

    @function_tool
    async def who(context: RunContext[Any]) -> str:
        """Who is it?"""
        return json.dumps(call.memory.caller.user_id)

    async with calling(Agent(instructions="-", tools=[who])) as call:
        assert await call.say("who {}") == "ada"


async def test_a_session_that_is_never_started_is_ended_at_once(known: Runtime) -> None:
    speech: AgentSession[Any] = AgentSession(llm=PlayedLLM(play), vad=None)
    acquire_runtime()
    memory = await attach(speech, caller=Caller("ada"))
    await memory.aclose()
    await memory.aclose()
    assert await known.store.recent_turns("ada") == []
