"""The behaviour of LiveKit's agents, requests and hand-offs that ``attach`` depends on. See docs/upgrading.md."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Any

import pytest
from livekit.agents import Agent, AgentSession, AgentTask, RunContext, function_tool, llm
from livekit.agents.llm.chat_context import Instructions
from livekit.agents.voice.audio_recognition import _EndOfTurnInfo, _EndOfTurnMetrics, _PreemptiveGenerationInfo

from tests.contract.livekit.livekit_stand_in import PlayedLLM, calls, talking
from tests.contract.livekit.realtime_stand_in import SilentRealtime
from tests.wait import until

pytestmark = pytest.mark.integration
PREEMPTIVE: Any = {"turn_detection": None, "preemptive_generation": {"enabled": True}}


class Named(Agent):
    """Notes when it enters, and hands over to ``other`` where it has one."""

    def __init__(self, name: str, seen: list[str], other: Named | None = None) -> None:
        super().__init__(instructions=name, id=name)
        self.seen, self.other = seen, other

    async def on_enter(self) -> None:
        self.seen.append(f"{self.id} enters")

    @function_tool
    async def hand_over(self) -> Any:
        """Hand over."""
        return self.other, "done"


async def test_an_agent_is_announced_before_it_enters_also_when_it_comes_back() -> None:
    """``companion.conversation.hook``: the event of a hand-off comes first, and ``current_agent`` is the new agent.

    Later, the first reply of an agent would be made without the memory.
    """
    seen: list[str] = []
    first, second = Named("first", seen), Named("second", seen)
    first.other, second.other = second, first
    model = PlayedLLM(calls("hand_over"))
    session: AgentSession[Any] = AgentSession(llm=model, vad=None, turn_handling={"turn_detection": None})

    def on_item(event: Any) -> None:
        if isinstance(event.item, llm.AgentHandoff):
            seen.append(f"{session.current_agent.id} announced")

    session.on("conversation_item_added", on_item)
    async with session:
        await session.start(first)
        await session.run(user_input="go")
        await session.run(user_input="back")
    names = ("first", "second", "first")
    assert seen == [f"{name} {what}" for name in names for what in ("announced", "enters")]


async def test_a_task_and_the_agent_after_it_are_announced() -> None:
    """``companion.conversation.hook``: an inline ``AgentTask`` is an agent of the session for a while."""

    class Ask(AgentTask[str]):
        async def on_enter(self) -> None:
            self.complete("answered")

    class Asking(Agent):
        @function_tool
        async def ask(self) -> str:
            """Ask."""
            return await Ask(instructions="ask")

    agent = Asking(instructions="-")
    async with talking(agent, PlayedLLM(calls("ask"))) as talk:
        kinds = []
        talk.session.on(
            "conversation_item_added",
            lambda event: (
                kinds.append(type(talk.session.current_agent).__name__)
                if isinstance(event.item, llm.AgentHandoff)
                else None
            ),
        )
        await talk.say("go")
    assert kinds == ["Ask", "Asking"]


@pytest.mark.parametrize("kind", ["generator", "coroutine", "text", "none"])
async def test_the_node_of_the_instance_is_read_for_each_reply_and_may_return_anything(kind: str) -> None:
    """``companion.conversation.hook``: it replaces ``llm_node`` on the agent, and returns what that returns."""
    agent = Agent(instructions="-")

    async def generator() -> AsyncIterator[str]:
        yield "generated"

    async def coroutine() -> str:
        return "awaited"

    results = {"generator": generator, "coroutine": coroutine, "text": lambda: "text", "none": lambda: None}
    async with talking(agent) as talk:
        await talk.say("before")
        agent.llm_node = lambda *_: results[kind]()  # type: ignore[method-assign]  # what is tested
        await talk.say("after")
    said = [item.text_content for item in talk.items if isinstance(item, llm.ChatMessage) and item.role == "assistant"]
    assert said[1:] == {"generator": ["generated"], "coroutine": ["awaited"], "text": ["text"], "none": []}[kind]


async def test_a_node_changes_the_context_of_its_request_alone_and_of_the_steps_after_a_tool() -> None:
    """``companion.conversation.hook`` (``place``): the block is in each step once, and never in a history."""

    class Placing(Agent):
        async def llm_node(self, chat_ctx: Any, tools: Any, model_settings: Any) -> AsyncIterator[Any]:
            had.append([item.id for item in chat_ctx.items].count("block"))
            if not had[-1]:
                chat_ctx.items.insert(1, llm.ChatMessage(id="block", role="system", content=["known"]))
            async for chunk in Agent.default.llm_node(self, chat_ctx, tools, model_settings):
                yield chunk

        @function_tool
        async def look(self) -> str:
            """Look."""
            return "looked"

    had: list[int] = []
    agent = Placing(instructions="-")
    async with talking(agent, PlayedLLM(calls("look"))) as talk:
        await talk.say("go")
        await talk.say("again")
        histories = [*talk.session.history.items, *agent.chat_ctx.items]
    assert had == [0, 1, 0, 1]
    assert all([item.id for item in asked.items].count("block") == 1 for asked in talk.model.asked)
    assert not any(item.id == "block" for item in histories)


async def test_a_session_that_has_closed_says_so_after_its_last_item() -> None:
    """``companion.conversation.session_memory``: the conversation is wrapped up at ``close``, with all of its turns."""
    seen: list[str] = []
    async with talking(Agent(instructions="-")) as talk:
        talk.session.on("conversation_item_added", lambda event: seen.append(event.item.type))
        talk.session.on("close", lambda _: seen.append("close"))
        await talk.say("hello")
    assert seen == ["message", "message", "close"]


async def test_a_session_that_begins_to_close_can_be_asked() -> None:
    """``companion.conversation.greeter`` (``_is_closing``): a session that is closing greets no caller."""
    async with talking(Agent(instructions="-")) as talk:
        assert talk.session._is_closing() is False
        talk.session.shutdown()
        assert talk.session._is_closing() is True


async def test_a_session_that_does_not_run_is_initializing_and_can_be_started_again() -> None:
    """``companion.conversation.session_memory`` (``aclose``, ``_on_item``): it waits for no session that does not run,
    and takes nothing from one that is started again.
    """

    class Broken(SilentRealtime):
        def session(self, **_: Any) -> llm.RealtimeSession[Any]:
            raise RuntimeError("no session")

    seen: list[str] = []
    session: AgentSession[Any] = AgentSession(llm=PlayedLLM(), vad=None, turn_handling={"turn_detection": None})
    session.on("conversation_item_added", lambda event: seen.append(event.item.type))
    session.on("close", lambda _: seen.append(f"close in {session.agent_state != 'initializing'}"))
    assert session.agent_state == "initializing"
    with pytest.raises(RuntimeError, match="no session"):
        await session.start(Agent(instructions="-", llm=Broken()))
    assert session.agent_state == "initializing"
    for _ in range(2):
        await session.start(Agent(instructions="-"))
        assert session.agent_state != "initializing"
        await session.aclose()
        assert session.agent_state == "initializing"
    assert seen == ["agent_handoff", *["agent_handoff", "close in True"] * 2]


@pytest.mark.parametrize("audio", [True, False])
async def test_a_realtime_model_has_the_instructions_of_its_modality(audio: bool) -> None:
    """``companion.conversation.realtime_instructions``: the block is behind the text that the model has without it."""
    model = SilentRealtime()
    model.capabilities.audio_output = audio
    own = Instructions("Be kind.", audio="Be brief.", text="Use lists.", dynamic="It is Monday.")
    session: AgentSession[Any] = AgentSession(llm=model)
    async with session:
        await session.start(Agent(instructions=own))
    assert model.prompts == [own.render(modality="audio" if audio else "text")]


async def test_a_session_without_a_room_has_no_room_io() -> None:
    """``companion.conversation.participant``: a RuntimeError says that there is no participant to look at."""
    async with talking(Agent(instructions="-")) as talk:
        with pytest.raises(RuntimeError, match="room_io"):
            _ = talk.session.room_io


async def test_tools_can_be_left_out_of_one_reply() -> None:
    """``companion.conversation.greeter`` (``greet``): the request for the greeting offers no tool."""

    @function_tool
    async def look(context: RunContext[Any]) -> str:
        """Look."""
        return "looked"

    async with talking(Agent(instructions="-", tools=[look])) as talk:
        await talk.session.generate_reply(instructions="greet", tools=[], tool_choice="none")
        await talk.say("hello")
    assert talk.offered == [set(), {"look"}]


async def test_livekits_own_system_messages_differ_from_a_programs() -> None:
    """``companion.voice.agent`` (``lasting_instructions``): their ids begin with ``lk.``."""
    context = llm.ChatContext.empty()
    context.add_message(role="system", content="given")
    agent = Agent(instructions=Instructions("be kind", dynamic="noon"), chat_ctx=context)
    async with talking(agent) as talk:
        await talk.say("hello")
        messages = [item for item in agent.chat_ctx.items if isinstance(item, llm.ChatMessage)]
        system = {item.text_content: item.id.startswith("lk.") for item in messages if item.role == "system"}
    assert system == {"be kind": True, "noon": True, "given": False}


async def test_instructions_of_a_realtime_model_change_and_are_in_the_history() -> None:
    """``companion.conversation.hook`` (``refresh``): ``update_instructions`` reaches the model, and the history.

    So the profile in a speech-to-speech model's prompt is in ``session.history`` as well, as docs/security.md
    says.
    """
    agent, model = Agent(instructions="be kind"), SilentRealtime()
    session: AgentSession[Any] = AgentSession(llm=model)
    async with session:
        await session.start(agent)
        await agent.update_instructions("be kind\n\nto Ada")
        assert agent.instructions == "be kind\n\nto Ada"
        history = str(session.history.to_dict(exclude_config_update=False))
    assert model.prompts == ["be kind", "be kind\n\nto Ada"]
    assert "to Ada" in history


@pytest.mark.parametrize("mutable", [True, False])
async def test_a_realtime_model_starts_with_what_its_agent_has_when_it_is_announced(mutable: bool) -> None:
    """``companion.conversation.hook`` (``on_handoff``): a model that cannot change later has what was known by then."""

    def on_item(event: Any) -> None:
        if isinstance(event.item, llm.AgentHandoff):
            agent = session.current_agent
            agent._instructions = "be kind\n\nto Ada"
            agent._chat_ctx.items.append(llm.ChatMessage(role="user", content=["before"]))

    model = SilentRealtime(mutable=mutable)
    session: AgentSession[Any] = AgentSession(llm=model)
    session.on("conversation_item_added", on_item)
    async with session:
        agent = Agent(instructions="be kind")
        await session.start(agent)
        assert [message.text_content for message in agent.chat_ctx.messages()] == ["before"]
        assert [message.text_content for message in model.sessions[0].chat_ctx.messages()] == ["before"]
        assert session.history.messages() == []
    assert model.prompts == ["be kind\n\nto Ada"]


async def test_a_preemptive_reply_is_used_although_its_node_changed_its_context() -> None:
    """``companion.conversation.hook`` (``place``): a reply that is made before the turn has ended is not made again.

    The framework compares other copies of the context. Changed instructions or tools would discard it.
    """

    class Placing(Agent):
        async def llm_node(self, chat_ctx: Any, tools: Any, model_settings: Any) -> AsyncIterator[Any]:
            chat_ctx.items.insert(1, llm.ChatMessage(id="block", role="system", content=["known"]))
            async for chunk in Agent.default.llm_node(self, chat_ctx, tools, model_settings):
                yield chunk

    async with talking(Placing(instructions="-"), turn_handling=PREEMPTIVE) as talk:
        activity: Any = talk.session._activity
        activity.on_preemptive_generation(_PreemptiveGenerationInfo("hello", 1.0, None))
        await until(lambda: talk.model.asked)
        nothing = dict.fromkeys((field.name for field in fields(_EndOfTurnMetrics)), None)
        activity.on_end_of_turn(_EndOfTurnInfo(False, "hello", 1.0, _EndOfTurnMetrics(**nothing)))
        await talk.spoken.wait()
    assert len(talk.model.asked) == 1
