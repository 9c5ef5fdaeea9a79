"""What programs do with a session that has a memory: hooks of their own, calls in any order, and a second start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from livekit.agents import Agent, AgentSession, StopResponse, llm
from livekit.agents.llm.chat_context import Instructions
from livekit.agents.voice.audio_recognition import _EndOfTurnInfo, _EndOfTurnMetrics
from livekit.agents.voice.room_io import RoomOptions

from companion import Caller, attach
from companion.conversation.hook import BLOCK_ID
from companion.conversation.session_memory import memory_of
from companion.memory.erasure import erase_user
from companion.prompts import PROFILE_HEADING
from companion.runtime import Runtime, acquire_runtime, get_runtime
from companion.store import Turn
from tests.agent.test_agent import join
from tests.companion.conversation.test_attach import ADA, Call, calling, play
from tests.companion.conversation.test_attach_rooms import a_room, begin, job
from tests.companion.scripted import ScriptedLLM
from tests.contract.livekit.livekit_stand_in import PlayedLLM
from tests.contract.livekit.realtime_stand_in import SilentRealtime
from tests.wait import until
from tools import CacheTools, MemoryTools

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("patient")]
TEXT = RoomOptions(audio_input=False, audio_output=False)


def a_session(**options: Any) -> AgentSession[Any]:
    return AgentSession(llm=PlayedLLM(play), vad=None, turn_handling={"turn_detection": None}, **options)


def texts(session: AgentSession[Any]) -> list[str]:
    """What was said."""
    return [(message.text_content or "").strip() for message in session.history.messages()]


def blocks(model: Any) -> list[int]:
    """How many blocks each request held."""
    return [[item.id for item in asked.items].count(BLOCK_ID) for asked in model.asked]


@pytest.fixture
async def known(runtime: Runtime) -> Runtime:
    """Ada has been here before."""
    await runtime.store.save_profile("ada", ADA)
    return runtime


# -- hooks of a program ----------------------------------------------------------------------------------------------


async def generator() -> AsyncIterator[str]:
    yield "said"


async def coroutine() -> str:
    return "said"


async def coroutine_of_a_generator() -> AsyncIterator[str]:
    return generator()


def raises() -> str:
    raise RuntimeError("the program's")


async def raises_later() -> str:
    return raises()


async def raises_in_between() -> AsyncIterator[str]:
    yield "said"
    raises()


@pytest.mark.parametrize(
    ("node", "answers"),
    [
        (generator, ["said"]),
        (coroutine, ["said"]),
        (coroutine_of_a_generator, ["said"]),
        (lambda: "said", ["said"]),
        (lambda: None, []),
        (raises, []),
        (raises_later, []),
        (raises_in_between, ["said"]),
    ],
    ids=["generator", "coroutine", "coroutine of one", "text", "none", "raises", "raises later", "in between"],
)
async def test_a_node_returns_or_raises_what_it_likes(
    known: Runtime, node: Callable[[], Any], answers: list[str]
) -> None:
    agent, seen = Agent(instructions="-"), []

    def own(chat_ctx: llm.ChatContext, *_: Any) -> Any:
        seen.append([item.id for item in chat_ctx.items].count(BLOCK_ID))
        return node()

    agent.llm_node = own  # type: ignore[method-assign]  # as a program may do
    async with calling(agent) as call:
        with suppress(RuntimeError):
            await call.say("hello")
        assert seen == [1]
        assert texts(call.session) == ["hello", *answers]
    assert [turn.text for turn in await known.store.recent_turns("ada")] == ["hello", *answers]
    assert agent.llm_node is own


async def test_what_an_agent_says_when_it_enters_is_stored_and_the_greeting_follows(known: Runtime) -> None:
    class Entering(Agent):
        async def on_enter(self) -> None:
            await self.session.say("You are recorded.")

    async with calling(Entering(instructions="-")) as call:
        await until(lambda: texts(call.session))
        await call.memory.greet("Greet.")
        await until(lambda: len(texts(call.session)) == 2)
        await call.say("hello")
    said = [turn.text for turn in await known.store.recent_turns("ada")]
    assert said == ["You are recorded.", "Done.", "hello", "Done."]


async def test_an_agent_may_greet_when_it_enters(known: Runtime) -> None:
    class Greeting(Agent):
        async def on_enter(self) -> None:
            memory = memory_of(self.session)
            assert memory is not None
            await memory.greet("Greet.")

    async with job(a_room("ada"), {"user_id": "ada"}) as ctx:
        session = a_session()
        await attach(session, ctx)
        await session.start(Greeting(instructions="-"), room=ctx.room, room_options=TEXT)
        await until(lambda: texts(session))
        assert blocks(session.llm) == [1]


async def test_a_context_that_the_agent_edits_holds_the_block_and_a_turn_that_it_stops_is_not_stored(
    known: Runtime,
) -> None:
    class Editing(Agent):
        async def on_user_turn_completed(self, turn_ctx: llm.ChatContext, new_message: llm.ChatMessage) -> None:
            if new_message.text_content == "stop":
                raise StopResponse
            turn_ctx.items.clear()
            turn_ctx.add_message(role="system", content="found")
            new_message.content = ["edited"]

    nothing = _EndOfTurnMetrics(**dict.fromkeys((field.name for field in fields(_EndOfTurnMetrics)), None))
    async with calling(Editing(instructions="Be kind.")) as call:
        activity: Any = call.session._activity
        for text in ("stop", "hello"):
            activity.on_end_of_turn(_EndOfTurnInfo(False, text, 1.0, nothing))
        await until(lambda: len(texts(call.session)) == 2)
        assert call.blocks == [1]
        assert "found" in call.last
    assert [turn.text for turn in await known.store.recent_turns("ada")] == ["edited", "Done."]


@pytest.mark.parametrize("realtime", [False, True])
async def test_a_caller_who_speaks_while_a_model_judges_on_the_opening_is_known(
    known: Runtime, model: ScriptedLLM, realtime: bool
) -> None:
    await known.store.add_turn("ada", Turn("user", "I live in Oslo", datetime.now(UTC), "before"))
    model.gate.clear()
    acquire_runtime()
    talking: Any = SilentRealtime(mutable=False) if realtime else PlayedLLM(play)
    session: AgentSession[Any] = AgentSession(llm=talking, vad=None, turn_handling={"turn_detection": None})
    memory = await attach(session, caller=Caller("ada"))
    await session.start(Agent(instructions="-"))
    if realtime:
        assert ADA in talking.prompts[0]
    else:
        await session.run(user_input="hello")
        assert blocks(talking) == [1]
        assert ADA in str(talking.asked[0].items)
    await until(lambda: model.asked)
    assert memory.known.briefing is not None
    assert not memory.known.briefing.done(), "it waits for no judgement"
    await memory.known.set_profile("Name: Zoë")
    model.gate.set()
    await memory.known.ready()
    assert memory.known.profile == "Name: Zoë"
    await session.aclose()
    await memory.aclose()


# -- calls in any order ----------------------------------------------------------------------------------------------


async def test_two_calls_of_attach_at_once_give_one_memory(known: Runtime) -> None:
    known.settings = replace(known.settings, phone_identity=True)  # then attach loads a library in a thread
    async with job(a_room("ada")) as ctx:
        session, before = a_session(), get_runtime().conversations
        made = await asyncio.gather(attach(session, ctx), attach(session, ctx), return_exceptions=True)
        assert sorted(type(one).__name__ for one in made) == ["SessionMemory", "ValueError"]
        assert get_runtime().conversations == before + 1


@pytest.mark.parametrize(
    ("room", "metadata", "known_caller"),
    [(True, None, True), (True, {"user_id": "ada"}, True), (False, {"user_id": "ada"}, True), (False, None, False)],
)
async def test_a_session_that_runs_may_get_a_memory(
    known: Runtime, room: bool, metadata: Any, known_caller: bool
) -> None:
    async with job(a_room("ada"), metadata) as ctx:
        session, options = a_session(), {"room": ctx.room, "room_options": TEXT} if room else {}
        await session.start(Agent(instructions="-"), **options)
        await session.run(user_input="before")
        memory = await attach(session, ctx)
        assert memory.partner.settled
        await memory.greet("Greet.")
        await session.run(user_input="after")
        assert blocks(session.llm) == [0, *[int(known_caller)] * 2]


@pytest.mark.parametrize("speaks", [False, True])
async def test_who_has_spoken_is_not_greeted_as_after_a_dropped_call(known: Runtime, speaks: bool) -> None:
    await known.store.add_turn("ada", Turn("user", "I live in Oslo", datetime.now(UTC), "c0"))
    async with calling(Agent(instructions="-")) as call:
        await call.memory.known.ready()
        if speaks:
            await call.say("hello")
        await call.memory.greet("Welcome them.")
        await until(lambda: call.model.asked and "Welcome them." in call.last)
        assert ("dropped call" in call.last) is not speaks


async def test_of_greetings_before_the_start_the_last_is_said(known: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.conversation.knowledge.DEADLINE", 0.1)
    async with job(a_room("ada"), {"user_id": "ada"}) as ctx:
        session = a_session()
        memory = await attach(session, ctx)
        for instructions in ("First.", "Last."):
            assert await memory.greet(instructions) is None
        await session.start(Agent(instructions="-"), room=ctx.room, room_options=TEXT)
        await until(lambda: texts(session))
        await session.run(user_input="hello")
        greeting, _ = session.llm.asked
        assert greeting.items[-1].text_content.startswith("Last.")


async def test_a_greeting_that_waits_gives_way_to_one_that_need_not(
    known: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("companion.conversation.knowledge.DEADLINE", 0.1)
    room = a_room()
    async with job(room, {"user_id": "ada"}) as ctx:
        call = await begin(ctx)
        assert await call.memory.greet("First.") is None
        join(room, "ada")
        await call.memory.greet("Last.")
        await until(lambda: texts(call.session))
        await call.say("hello")
        greeting, _ = call.model.asked
        assert greeting.items[-1].text_content.startswith("Last.")


async def test_a_session_that_is_closed_or_has_not_started_greets_no_caller(known: Runtime) -> None:
    acquire_runtime()
    session = a_session()
    memory = await attach(session, caller=Caller("ada"))
    with pytest.raises(RuntimeError, match="isn't running"):
        await memory.greet()
    await session.start(Agent(instructions="-"))
    await session.aclose()
    assert await memory.greet() is None
    await memory.aclose()
    assert session.llm.asked == []


async def test_a_session_that_is_started_again_needs_another_memory(known: Runtime) -> None:
    acquire_runtime()
    session, agent = a_session(tools=[MemoryTools()]), Agent(instructions="-")
    first = await attach(session, caller=Caller("ada"))
    await session.start(agent)
    await session.run(user_input="I am Ada")
    await session.aclose()
    await session.start(agent)
    stranger = Call(session, first, session.llm)
    assert (await stranger.say("getUserProfile {}"))["success"] is False
    await session.aclose()
    second = await attach(session, caller=Caller("bob"))
    await session.start(agent)
    assert (await Call(session, second, session.llm).say("rememberFact", fact="Bob was here"))["success"]
    await session.aclose()
    await asyncio.gather(first.aclose(), second.aclose())
    assert blocks(session.llm) == [1, 0, 0, 1, 1]
    assert [turn.text for turn in await known.store.recent_turns("ada")] == ["I am Ada", "Done."]
    assert len(await known.store.recent_turns("bob")) == 2
    for name in ("ada", "bob"):
        assert (await known.store.get_state(name) or {})["conversations"] == 1


async def test_a_node_that_a_program_has_kept_knows_no_caller_of_before(known: Runtime) -> None:
    agent = Agent(instructions="-")
    async with calling(agent):
        kept = agent.llm_node
        agent.llm_node = lambda *args: kept(*args)  # type: ignore[method-assign]  # as a program may do
    async with calling(agent, caller=None) as call:
        await call.say("hello")
    assert call.blocks == [0]


async def test_a_job_that_ends_while_a_memory_is_attached_leaves_nothing_open(known: Runtime) -> None:
    known.settings = replace(known.settings, phone_identity=True)  # then attach loads a library in a thread
    before = known.conversations
    for moments in range(6):  # the job ends that many turns of the event loop later
        async with job(a_room("ada"), {"user_id": "ada"}) as ctx:
            session: AgentSession[Any] = AgentSession(llm=SilentRealtime())  # for which attach waits for the briefing
            attaching = asyncio.create_task(attach(session, ctx))
            for _ in range(2**moments - 1):
                await asyncio.sleep(0)
            attaching.cancel()
            await asyncio.wait({attaching})
        assert known.conversations == before + moments + 1, "each job acquires the runtime for the test as well"
    assert get_runtime() is known


async def test_a_session_that_could_not_start_is_not_waited_for(
    known: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(SilentRealtime):
        def session(self, **_: Any) -> llm.RealtimeSession[Any]:
            raise RuntimeError("no session")

    monkeypatch.setattr("companion.conversation.session_memory.CLOSE_TIMEOUT", 60)
    async with job(a_room("ada"), {"user_id": "ada"}) as ctx:
        session: AgentSession[Any] = AgentSession(llm=Broken())
        await attach(session, ctx)
        with pytest.raises(RuntimeError, match="no session"):
            await session.start(Agent(instructions="-"), room=ctx.room, room_options=TEXT)
        await session.room_io.aclose()  # LiveKit closes it with a session that has started


async def test_a_caller_object_may_be_used_for_several_conversations(known: Runtime) -> None:
    ada = Caller("ada")
    async with calling(Agent(instructions="-"), caller=ada) as call:
        await call.say("hello")
    await erase_user("ada")
    async with calling(Agent(instructions="-"), caller=ada) as call:
        await call.say("hello again")
    assert [turn.text for turn in await known.store.recent_turns("ada")] == ["hello again", "Done."]


class Fields(dict[str, Any]):
    """A common way to write a dict with attributes."""

    __getattr__ = dict.__getitem__


@pytest.mark.parametrize("userdata", [None, Fields(), {"caller": Caller("ada")}, Fields(caller="ada")], ids=str)
async def test_tools_of_a_session_without_a_memory_know_no_caller(known: Runtime, userdata: Any) -> None:
    session = a_session(userdata=userdata, tools=[CacheTools(), MemoryTools()])
    async with session:
        await session.start(Agent(instructions="-"))
        for tool in ("clearUserCache", "getUserProfile", "getConversationContext", "forgetEverything"):
            result = await Call(session, memory_of(session), session.llm).say(f"{tool} {{}}")
            assert (result["success"], "do not know who you are" in result["message"]) == (False, True)


# -- speech to speech ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mutable", [True, False])
async def test_instructions_with_parts_stay_whole_and_the_programs(known: Runtime, mutable: bool) -> None:
    own = Instructions("Be kind.", audio="Be brief.", text="Use lists.", dynamic="It is Monday.")
    agent = Agent(instructions=own)
    async with calling(agent, model=SilentRealtime(mutable=mutable)) as call:
        await until(lambda: call.model.prompts)
        (prompt,) = call.model.prompts
        assert prompt.startswith(f"{own.render(modality='text')}\n\n{PROFILE_HEADING}")
        await call.memory.known.forget_everything()
    assert agent.instructions is own


async def test_an_agents_own_realtime_model_has_the_block_when_it_starts(known: Runtime) -> None:
    acquire_runtime()
    model, session = SilentRealtime(mutable=False), AgentSession[Any](vad=None)
    memory = await attach(session, caller=Caller("ada"))
    await session.start(Agent(instructions="-", llm=model))
    await session.aclose()
    await memory.aclose()
    (prompt,) = model.prompts
    assert ADA in prompt


@pytest.mark.parametrize("own", [True, False])
async def test_a_realtime_model_greets_without_an_update_of_its_tools(
    known: Runtime, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """Whether it is the session's or the agent's own, beside a model of another kind."""
    realtime = SilentRealtime()
    agent = Agent(instructions="-", llm=realtime) if own else Agent(instructions="-")
    asked: list[dict[str, Any]] = []
    async with calling(agent, model=None if own else realtime) as call:
        monkeypatch.setattr(call.session, "generate_reply", lambda **options: asked.append(options))
        await call.memory.greet("Greet the user.")
    assert [options.keys() for options in asked] == [{"instructions", "tool_choice"}]


async def test_a_realtime_model_forgets_a_caller_whose_place_another_takes(known: Runtime) -> None:
    async with job(a_room("ada", "bob"), {"user_id": "ada"}) as ctx:
        call = await begin(ctx, model=SilentRealtime())
        await until(lambda: ADA in call.model.prompts[-1])
        call.session.room_io.set_participant("bob")  # there is no event for it
        await until(lambda: call.model.prompts[-1] == "Be kind.")
        call.session.room_io.set_participant("ada")
        await until(lambda: ADA in call.model.prompts[-1])
