"""A memory in a room: whose it is, participants that join and leave, and what other participants' prompts lack."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import ReferenceType, ref

import pytest
from livekit import rtc
from livekit.agents import NOT_GIVEN, Agent, AgentSession, JobExecutorType
from livekit.agents.ipc.mock_room import create_mock_room
from livekit.agents.voice.room_io import RoomOptions

from companion import Caller, attach
from companion.runtime import Runtime, acquire_runtime
from tests.agent.test_agent import join, leave
from tests.companion.conversation.test_attach import Call, play
from tests.contract.livekit.livekit_stand_in import PlayedLLM
from tests.contract.livekit.realtime_stand_in import SilentRealtime
from tests.real.livekit.job_context import job_context
from tests.wait import until
from tools import MemoryTools

pytestmark = pytest.mark.integration
PEOPLE = {"ada": "Name: Ada", "bob": "Name: Bob"}


@pytest.fixture
async def known(runtime: Runtime) -> Runtime:
    """Both have been here before."""
    for name, profile in PEOPLE.items():
        await runtime.store.save_profile(name, profile)
    return runtime


def a_room(*people: str) -> Any:
    """LiveKit's own stand-in for a room, with these participants."""
    room = create_mock_room.__wrapped__()
    room.remote_participants = {}
    for name in people:
        join(room, name)
    return room


@asynccontextmanager
async def job(room: Any, metadata: dict[str, str] | None = None) -> AsyncIterator[Any]:
    """A job in a room, as a LiveKit server dispatches it."""
    acquire_runtime()  # the test's, which it closes itself
    async with asyncio.timeout(20), job_context(room, json.dumps(metadata or {})) as ctx:
        yield ctx


async def begin(ctx: Any, *, identity: str = "", kinds: Any = NOT_GIVEN, model: Any = None, **options: Any) -> Call:
    """The five lines, in a room for text."""
    model = model or PlayedLLM(play)
    session: AgentSession[Any] = AgentSession(
        llm=model, tools=[MemoryTools()], vad=None, turn_handling={"turn_detection": None}
    )
    memory = await attach(session, ctx, **options)
    room_options = RoomOptions(
        audio_input=False, audio_output=False, participant_identity=identity or NOT_GIVEN, participant_kinds=kinds
    )
    await session.start(Agent(instructions="Be kind."), room=ctx.room, room_options=room_options)
    return Call(session, memory, model)


async def greeted(call: Call) -> str:
    """Greet; what the model was asked."""
    await call.memory.greet("Greet the user.")
    await until(lambda: call.session.history.messages())
    return call.last


async def test_jobs_in_threads_do_not_race_for_the_native_client(
    known: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a server of the program's own, which has no ``make_native_client`` as its ``setup_fnc``."""
    made: list[Any] = []
    monkeypatch.setattr(rtc, "AudioResampler", lambda *rates: made.append(rates))
    async with job(a_room("ada")) as ctx:
        assert ctx.proc.executor_type is JobExecutorType.THREAD
        await begin(ctx)
    assert len(made) == 1


@pytest.mark.parametrize("metadata", [None, {"user_id": "ada"}])
async def test_who_is_in_the_room_is_greeted_and_remembered(known: Runtime, metadata: Any) -> None:
    room = a_room("ada")
    async with job(room, metadata) as ctx:
        call = await begin(ctx)
        assert "Name: Ada" in await greeted(call)
        assert (await call.say("rememberFact", fact="The key is under the mat."))["success"]
    assert await known.store.count_memories("ada") == 1
    assert len(await known.store.recent_turns("ada")) == 3


@pytest.mark.parametrize("metadata", [None, {"user_id": "ada"}])
async def test_a_greeting_in_an_empty_room_times_out_and_a_later_caller_is_greeted(
    known: Runtime, metadata: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("companion.conversation.knowledge.DEADLINE", 0.2)
    room = a_room()
    async with job(room, metadata) as ctx:
        call = await begin(ctx)
        assert await call.memory.greet("Greet the user.") is None
        await call.say("is anybody there?")  # as a program may ask before anybody is
        assert call.blocks == [0]
        join(room, "ada")
        await until(lambda: len(call.session.history.messages()) == 3)
        assert "Greet the user." in call.last
        assert "Name: Ada" in call.last
    assert "anybody" not in str(await known.store.recent_turns("ada"))


async def test_a_room_that_stays_empty_is_left_at_once(known: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.conversation.knowledge.DEADLINE", 0.2)
    async with job(a_room()) as ctx:
        call = await begin(ctx)
        assert await call.memory.greet() is None
    assert call.model.asked == []


@pytest.mark.parametrize("metadata", [None, {"user_id": "ada"}])
async def test_a_session_without_a_room_waits_for_no_participant(known: Runtime, metadata: Any) -> None:
    """As where a program brings audio of its own: then only the metadata says who calls."""
    async with job(a_room("ada"), metadata) as ctx:
        session: AgentSession[Any] = AgentSession(llm=PlayedLLM(play), vad=None, turn_handling={"turn_detection": None})
        call = Call(session, await attach(session, ctx), session.llm)
        await session.start(Agent(instructions="Be kind."))
        assert call.memory.partner.settled
        await call.say("hello")
        assert call.blocks == [int(metadata is not None)]


async def test_who_is_no_person_is_answered_at_once(known: Runtime) -> None:
    room = a_room()
    join(room, "robot", rtc.ParticipantKind.PARTICIPANT_KIND_AGENT)
    async with job(room) as ctx:
        call = await begin(ctx, kinds=[rtc.ParticipantKind.PARTICIPANT_KIND_AGENT])
        await until(lambda: call.memory.partner.settled)
        await call.say("hello")
        assert call.blocks == [0]


@pytest.mark.parametrize(
    ("people", "metadata", "known_caller"),
    [
        ([], {"user_id": "ada"}, True),
        (["ada"], {"user_id": "ada"}, True),
        (["bob", "ada"], {"user_id": "ada"}, False),
        ([], None, False),
    ],
    ids=str,
)
async def test_a_model_that_cannot_change_knows_only_whom_the_room_is_for(
    known: Runtime, people: list[str], metadata: Any, known_caller: bool
) -> None:
    async with job(a_room(*people), metadata) as ctx:
        call = await begin(ctx, model=SilentRealtime(mutable=False))
        await until(lambda: call.model.prompts)
        assert ["Name: Ada" in instructions for instructions in call.model.prompts] == [known_caller]


async def test_a_realtime_model_knows_who_comes_before_it_greets(
    known: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("companion.conversation.knowledge.DEADLINE", 0.2)
    room = a_room()
    async with job(room, {"user_id": "ada"}) as ctx:
        call = await begin(ctx, model=SilentRealtime())
        assert await call.memory.greet("Greet the user.") is None
        join(room, "ada")
        await until(lambda: call.model.asked)
        assert "Name: Ada" in call.model.prompts[-1]


async def test_a_session_is_let_go_when_its_job_has_ended(known: Runtime) -> None:
    async def a_call() -> list[ReferenceType[Any]]:
        async with job(a_room("ada"), {"user_id": "ada"}) as ctx:
            call = await begin(ctx)
            await greeted(call)
            return [ref(one) for one in (call.session, call.memory, call.session.current_agent)]

    def collect() -> None:
        # A cancelled timer holds the context of its job until the loop drops those that are too many.
        for _ in range(1000):
            asyncio.get_running_loop().call_later(60, collect).cancel()
        gc.collect()

    await asyncio.create_task(a_call())  # the services of the process begin in the context of its first job
    held = await asyncio.create_task(a_call())
    await until(lambda: collect() or not any(one() for one in held))


async def test_two_people_have_a_memory_each(known: Runtime) -> None:
    room = a_room("ada", "bob")
    async with job(room) as ctx:
        calls = {name: await begin(ctx, identity=name, caller=Caller(name)) for name in PEOPLE}
        for name, call in calls.items():
            assert PEOPLE[name] in await greeted(call)
            assert (await call.say("rememberFact", fact=f"{name} was here"))["success"]
            (other,) = PEOPLE.keys() - {name}
            assert PEOPLE[other] not in str(call.model.asked)
        await calls["bob"].session.aclose()
    for name in PEOPLE:
        assert [fact.text for fact in await known.store.search_memories(name, "")] == [f"{name} was here"]
        assert len({turn.conversation_id for turn in await known.store.recent_turns(name)}) == 1


@pytest.mark.parametrize("metadata", [None, {"user_id": "ada"}])
async def test_another_participant_hears_nothing_and_writes_nothing(known: Runtime, metadata: Any) -> None:
    room = a_room("ada", "bob")
    async with job(room, metadata) as ctx:
        call = await begin(ctx)
        assert "Name: Ada" in await greeted(call)
        call.session.room_io.set_participant("bob")  # there is no event for it
        assert (await call.say("rememberFact", fact="Bob was here"))["success"] is False
        assert (await call.say("getUserProfile {}"))["success"] is False
        await call.say("I am Bob")
        assert call.blocks == [1, 0, 0, 0, 0, 0]
        call.session.room_io.set_participant("ada")
        assert (await call.say("getUserProfile {}"))["profile"] == "Name: Ada"
        assert call.blocks[-1] == 1
    assert await known.store.count_memories("ada") == await known.store.count_memories("bob") == 0
    assert "Bob" not in str(await known.store.recent_turns("ada"))
    assert await known.store.recent_turns("bob") == []


async def test_who_takes_the_place_of_the_caller_before_the_greeting_is_greeted_as_themselves(known: Runtime) -> None:
    room = a_room("ada")
    async with job(room) as ctx:
        call = await begin(ctx)
        call.session.room_io.unset_participant()
        leave(room, "ada")
        join(room, "bob")
        asked = await greeted(call)
        assert "Name: Bob" in asked
        assert "Ada" not in asked
    assert await known.store.recent_turns("ada") == []


async def test_a_user_who_is_not_meant_is_a_stranger_and_is_not_unlinked(
    known: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    room = a_room("bob", "ada")
    async with job(room, {"user_id": "ada"}) as ctx:
        call = await begin(ctx)
        asked = await greeted(call)
        assert call.session.room_io.linked_participant.identity == "bob"
        assert "Name:" not in asked
        assert call.blocks == [0]
    assert "nothing is remembered in this conversation" in caplog.text


async def test_the_session_can_be_linked_to_whom_the_metadata_names(known: Runtime) -> None:
    async with job(a_room("bob", "ada"), {"user_id": "ada"}) as ctx:
        call = await begin(ctx, link=True)
        assert "Name: Ada" in await greeted(call)
        assert call.session.room_io.linked_participant.identity == "ada"


async def test_what_is_said_last_is_wrapped_up(known: Runtime) -> None:
    """The session closes after the shutdown callbacks have begun, as where it is not the job's first."""
    room = a_room("ada")
    async with job(room) as ctx:
        call = await begin(ctx)
        await greeted(call)
        await call.say("hello")
        ending = asyncio.create_task(call.memory.aclose())
        await asyncio.sleep(0)
        await call.say("one last thing")
        await call.session.aclose()
        await ending
        assert "one last thing" in [turn.text for turn in await known.store.recent_turns("ada")]
        assert (await known.store.get_state("ada") or {})["conversations"] == 1
