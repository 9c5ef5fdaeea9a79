"""The worker's real entrypoint in this process, with consecutive and concurrent conversations."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from livekit import rtc
from livekit.agents import AgentSession, JobContext, RunContext, function_tool, get_job_context, llm
from livekit.agents.ipc.mock_room import create_mock_room

import companion.conversation.briefing
from companion.conversation.turn_log import TurnLog
from companion.identity import current_caller
from companion.runtime import Runtime, get_runtime, set_runtime
from companion.store import Opening, SqliteStore, StoreError, Turn
from tests.real.livekit.job_context import job_context
from tests.real.redis.redis_server import RedisServer
from tests.tools.conversation import Conversation, ObedientLLM
from tests.wait import until

pytestmark = pytest.mark.integration
STANDARD = rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD
UUID = "0b9a4f5e-8a34-4a39-9f4e-2d6f0f1c7a11"


@pytest.fixture
def entrypoint(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The entrypoint, with the shared Redis and a home of its own."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")
    monkeypatch.setenv("CACHE_CONNECT_WAIT_MS", "5000")
    # Bounds the delay of closing when a store hangs.
    monkeypatch.setattr("companion.caching.outbox_relay.DRAIN_TIMEOUT", 0.3)
    monkeypatch.chdir(tmp_path)  # importing it reads the .env of the working directory
    from agent import entrypoint, server

    assert server
    return entrypoint


@asynccontextmanager
async def job(
    entrypoint: Any,
    metadata: object = "",
    *,
    identity: object = "mock_user",
    dispatched: bool = True,
    others: Mapping[str, rtc.ParticipantKind.ValueType] | None = None,
    prepare: Callable[[JobContext], None] = lambda ctx: None,
) -> AsyncIterator[Conversation]:
    """Run one job; the greeting has been given when the block begins.

    ``dispatched``: as from a LiveKit server; else as from the console. ``identity``: the participant's. ``others``: the
    identities and kinds of those who came after.
    """
    room = create_mock_room.__wrapped__()
    next(iter(room.remote_participants.values())).identity = identity
    for other, kind in (others or {}).items():
        join(room, other, kind)
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    async with job_context(room, text, dispatched=dispatched) as ctx:
        prepare(ctx)
        await entrypoint(ctx)
        session: AgentSession[Any] = ctx.primary_session
        await until(lambda: session.history.messages())
        yield Conversation(session, session.llm)


async def test_a_room_that_cannot_be_joined_is_one_line(
    entrypoint: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refused(*_: object, **__: object) -> None:
        raise rtc.ConnectError("engine: signal failure: the room does not exist")

    ended: list[str] = []
    monkeypatch.setattr(JobContext, "connect", refused)
    monkeypatch.setattr(JobContext, "shutdown", lambda _, reason="": ended.append(reason))
    async with job_context(create_mock_room.__wrapped__(), json.dumps({"user_id": "ada"})) as ctx:
        await entrypoint(ctx)
    assert ended == ["the room cannot be joined"]
    (line,) = [each for each in caplog.records if "cannot be joined" in each.getMessage()]
    assert line.getMessage().endswith("the job ends: engine: signal failure: the room does not exist")
    assert line.exc_info is None


def join(room: Any, identity: str, kind: rtc.ParticipantKind.ValueType = STANDARD) -> None:
    """Put a participant into a mock of a room."""
    other = create_autospec(rtc.RemoteParticipant, instance=True)
    other.identity, other.sid, other.kind, other.attributes = identity, f"PA_{identity}", kind, {}
    other.state = rtc.ParticipantState.PARTICIPANT_STATE_ACTIVE
    room.remote_participants[other.sid] = other
    announce(room, "participant_connected", other)
    announce(room, "participant_active", other)


def leave(room: Any, identity: str) -> None:
    """Disconnect a participant from a mock of a room."""
    (sid,) = (sid for sid, one in room.remote_participants.items() if one.identity == identity)
    left = room.remote_participants.pop(sid)
    left.disconnect_reason = rtc.DisconnectReason.CLIENT_INITIATED
    announce(room, "participant_disconnected", left)


def announce(room: Any, event: str, participant: Any) -> None:
    """Call the handlers of an event of a mock of a room."""
    for name, handler in [call.args for call in room.on.call_args_list if len(call.args) == 2]:
        if name == event:
            handler(participant)


def greeting(talk: Conversation) -> str:
    first = talk.session.history.messages()[0]
    assert first.role == "assistant"
    return str(first.text_content)


def name_of(talk: Conversation) -> str | None:
    caller = talk.memory.caller
    return caller and caller.user_id


async def stored(tmp_path: Path, user_id: str) -> list[Turn]:
    store = SqliteStore(tmp_path / "home" / "companion.db")
    try:
        return await store.recent_turns(user_id, 100)
    finally:
        await store.close()


# -- who is there ------------------------------------------------------------------------------------------------


async def test_a_briefing_is_not_used_for_another_participant(
    entrypoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with job(entrypoint, {"user_id": "ada"}) as talk:
        await talk.session.run(user_input="My name is Ada.")
    wait = companion.conversation.briefing.Prefetch.wait
    left: list[str] = []
    here: list[Any] = []

    async def meanwhile(prefetch: Any) -> None:
        (present,) = here[0].remote_participants.values()
        if present.identity == "ada":  # she disconnects, and another participant joins
            left.append(present.identity)
            present.identity = "eve"
        await wait(prefetch)

    monkeypatch.setattr(companion.conversation.briefing.Prefetch, "wait", meanwhile)
    async with job(entrypoint, identity="ada", prepare=lambda ctx: here.append(ctx.room)) as talk:
        assert left == ["ada"]
        assert name_of(talk) == "eve"
        assert "Ada" not in greeting(talk)
        assert talk.session.room_io.linked_participant.identity == "eve"
    assert await stored(tmp_path, "ada")
    assert all("eve" not in turn.text for turn in await stored(tmp_path, "ada"))


async def test_a_failed_prefetch_for_a_participant_who_left_is_retrieved(
    entrypoint: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wait, here = companion.conversation.briefing.Prefetch.wait, []

    async def meanwhile(prefetch: Any) -> None:
        await wait(prefetch)
        next(iter(here[0].remote_participants.values())).identity = "eve"  # ada has disconnected by then

    with monkeypatch.context() as patch:
        patch.setattr(companion.conversation.briefing, "get_user_profile_async", fail)
        patch.setattr(companion.conversation.briefing.Prefetch, "wait", meanwhile)
        async with job(entrypoint, identity="ada", prepare=lambda ctx: here.append(ctx.room)) as talk:
            assert name_of(talk) == "eve"
        del talk
    gc.collect()  # asyncio reports exceptions that were never retrieved
    assert "never retrieved" not in caplog.text


# -- one conversation --------------------------------------------------------------------------------------------


async def test_it_speaks_first_keeps_what_is_said_and_remembers(
    entrypoint: Any, tmp_path: Path, redis_server: RedisServer
) -> None:
    async with job(entrypoint, {"user_id": "ada"}) as talk:
        assert "What is your name?" in greeting(talk)
        await talk.session.run(user_input="My name is Ada.")
        await talk.session.run(user_input="My sister visits on Friday")
    first = await stored(tmp_path, "ada")
    assert [(turn.role, turn.text) for turn in first if turn.role == "user"] == [
        ("user", "My name is Ada."),
        ("user", "My sister visits on Friday"),
    ]
    assert [turn.role for turn in first] == ["assistant", "user", "assistant", "user", "assistant"]
    assert len({turn.conversation_id for turn in first}) == 1

    async with job(entrypoint, {"user_id": "ada"}) as talk:
        assert ", Ada!" in greeting(talk)
        assert "“My sister visits on Friday”" in greeting(talk)
        assert "Name: Ada" in talk.prompt
    # A greeting without a reply is no conversation.
    assert len({turn.conversation_id for turn in await stored(tmp_path, "ada")}) == 1

    async with job(entrypoint, {"user_id": "bea"}) as talk:
        assert "What is your name?" in greeting(talk)
        assert "Ada" not in talk.prompt


async def test_the_prefetch_runs_while_the_room_connects(entrypoint: Any, redis_server: RedisServer) -> None:
    connected: list[int] = []

    def prepare(ctx: JobContext) -> None:
        async def connect() -> None:
            # Both were looked up, missed, fetched from the store and cached, while this one was still connecting.
            await until(lambda: redis_server.cli("EXISTS", "user:ada:profile", "user:ada:greeting_instructions") == 2)
            connected.append(1)

        ctx.connect = connect

    async with job(entrypoint, {"user_id": "ada"}, prepare=prepare):
        assert connected


async def test_the_end_leaves_no_task_and_no_thread(entrypoint: Any) -> None:
    threads = set(threading.enumerate())
    async with job(entrypoint, {"user_id": "ada"}) as talk:
        await talk.session.run(user_input="cache stats")
    assert asyncio.all_tasks() == {asyncio.current_task()}
    left = {thread.name for thread in set(threading.enumerate()) - threads}
    assert not any(name.startswith("sqlite-store") for name in left)


async def test_what_is_said_as_the_job_ends_is_kept(entrypoint: Any, tmp_path: Path) -> None:
    async with job(entrypoint, {"user_id": "ada"}) as talk:
        run = talk.session.run(user_input="One last thing: the key is under the mat.")
        await until(lambda: any(message.role == "user" for message in talk.session.history.messages()))
        assert not run.done()
    assert "One last thing: the key is under the mat." in [turn.text for turn in await stored(tmp_path, "ada")]


# -- who is calling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "identity", "user_id"),
    [
        ({"user_id": "ada"}, "bea", "ada"),
        ({"user_id": f"user-{UUID.upper()}"}, "bea", UUID),
        ({"user_id": "*"}, "bea", None),
        ({"user_id": None}, "bea", None),
        ({"other": 1}, "bea", "bea"),
        ("", f"user-{UUID}", UUID),
        ("not JSON", "bea", "bea"),
        ('{"user_id": "ada"', "bea", None),
        ({"user_id": 42}, "bea", "42"),
        ("", "user:*", None),
        ("", "sip_anonymous", None),
        ("", "auth0|bea", "~=auth0=7cbea"),
    ],
)
async def test_the_caller_is_identified(
    entrypoint: Any, metadata: object, identity: object, user_id: str | None
) -> None:
    async with job(entrypoint, metadata, identity=identity) as talk:
        assert name_of(talk) == user_id
        assert greeting(talk)


async def test_the_consoles_user_is_an_operator(entrypoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with job(entrypoint, dispatched=False) as talk:
        assert (name_of(talk), talk.memory.caller.operator) == ("console", True)
    monkeypatch.setenv("COMPANION_USER_ID", "ada")
    async with job(entrypoint, dispatched=False) as talk:
        assert (name_of(talk), talk.memory.caller.operator) == ("ada", True)


async def test_others_are_operators_only_if_they_are_listed(entrypoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPANION_OPERATORS", "ops, second")
    for user_id, operator in (("ada", False), ("ops", True), ("second", True)):
        async with job(entrypoint, {"user_id": user_id, "operator": True}) as talk:
            assert talk.memory.caller.operator is operator


async def test_an_unknown_caller_is_greeted_and_not_remembered(
    entrypoint: Any, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with job(entrypoint, {"user_id": "user:*"}, identity="ada") as talk:
        assert "What is your name?" in greeting(talk)
        events = (await talk.session.run(user_input="My name is Eve.")).events
        assert "do not know who you are" in events[-1].item.text_content
        await talk.session.run(user_input="Remember that the key is under the mat.")
        await talk.session.run(user_input="clear my cache")
    assert redis_server.cli("KEYS", "user:*") == []
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not any(b"under the mat" in path.read_bytes() or b"Eve" in path.read_bytes() for path in files)


# -- two at once -------------------------------------------------------------------------------------------------


class Probe(llm.Toolset):
    """A tool that returns the caller as tools see it."""

    def __init__(self) -> None:
        super().__init__(id="probe")

    @function_tool
    async def who(self, context: RunContext[Any]) -> str:
        """The caller by userdata and the session's memory, in this task, in a new task, and in a thread."""
        caller = current_caller()

        async def inner() -> str | None:
            await asyncio.sleep(0)
            return getattr(current_caller(), "user_id", None)

        return json.dumps(
            {
                "userdata": context.userdata.caller.user_id,
                "memory": Conversation(context.session, context.session.llm).memory.caller.user_id,
                "here": getattr(caller, "user_id", None),
                "task": await asyncio.create_task(inner()),
                "thread": getattr(await asyncio.to_thread(current_caller), "user_id", None),
            }
        )


Contexts = dict[str, contextvars.Context]


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> Contexts:
    """The context of each user's session start; the framework handles turns in copies of it."""
    import agent

    known: Contexts = {}
    profile_tools = agent.MemoryTools

    class ProbeBesideProfileTools(Probe):
        def __init__(self) -> None:
            super().__init__()
            self._tools = [*self._tools, *profile_tools().tools]
            known[json.loads(get_job_context().job.metadata)["user_id"]] = contextvars.copy_context()

    monkeypatch.setattr(agent, "MemoryTools", ProbeBesideProfileTools)
    return known


async def live(entrypoint: Any, user_id: str, contexts: Contexts, together: Callable[[], Any]) -> None:
    """A conversation that repeatedly checks its caller, and writes and reads its own data."""

    async def talk_a_while(talk: Conversation) -> None:
        await together()
        for number in range(5):
            assert await talk.use("who") == dict.fromkeys(("userdata", "memory", "here", "task", "thread"), user_id)
            await talk.use("updateUserProfile", profile=f"Name: {user_id} {number}")
            assert (await talk.use("getUserProfile"))["profile"] == f"Name: {user_id} {number}"
            assert f"Name: {user_id} {number}" in talk.prompt
        assert (await talk.use("clearUserCache"))["message"].endswith(f"for user {user_id}")
        assert (await talk.use("invalidateCache", pattern="*"))["deleted_keys"] == 0

    async with job(entrypoint, {"user_id": user_id}) as talk:
        await asyncio.create_task(talk_a_while(talk), context=contexts[user_id])
    assert current_caller() is None


async def test_two_conversations_in_one_loop_stay_apart(entrypoint: Any, contexts: Contexts, tmp_path: Path) -> None:
    set_runtime(Runtime(model=ObedientLLM()))
    both = asyncio.Barrier(2)
    async with asyncio.TaskGroup() as group:
        for user_id in ("ada", "bea"):
            group.create_task(live(entrypoint, user_id, contexts, both.wait))
    for mine, other in (("ada", "bea"), ("bea", "ada")):
        turns = await stored(tmp_path, mine)
        assert any(mine in turn.text for turn in turns)
        assert not any(other in turn.text for turn in turns)


async def test_two_conversations_in_threads_stay_apart(entrypoint: Any, contexts: Contexts, tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=20)

    async def alone(user_id: str) -> None:
        set_runtime(Runtime(model=ObedientLLM()))
        await live(entrypoint, user_id, contexts, lambda: asyncio.to_thread(both.wait))

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, alone(user_id)) for user_id in ("ada", "bea")))
    for mine, other in (("ada", "bea"), ("bea", "ada")):
        assert not any(other in turn.text for turn in await stored(tmp_path, mine))


async def test_an_error_in_one_conversation_is_none_in_the_other(
    entrypoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four unrecoverable errors of a model end its conversation, and no other."""
    async with job(entrypoint, {"user_id": "ada"}) as hers, job(entrypoint, {"user_id": "bea"}) as others:
        assert hers.session.llm is not others.session.llm
        ended = asyncio.Event()
        others.session.on("close", lambda _: ended.set())
        problem = llm.LLMError(timestamp=0.0, label="", error=RuntimeError("no more"), recoverable=False)
        for _ in range(5):
            others.session.llm.emit("error", problem)
        await asyncio.wait_for(ended.wait(), 10)
        events = (await hers.session.run(user_input="My name is Ada.")).events
        assert "Nice to meet you, Ada." in events[-1].item.text_content


async def test_the_first_conversation_to_end_closes_nothing_of_the_other(entrypoint: Any) -> None:
    async with job(entrypoint, {"user_id": "ada"}) as talk:
        async with job(entrypoint, {"user_id": "bea"}):
            pass
        events = (await talk.session.run(user_input="My name is Ada.")).events
        assert "Nice to meet you, Ada." in events[-1].item.text_content
        assert get_runtime().conversations == 1


# -- whatever fails, it talks ------------------------------------------------------------------------------------


async def fail(*_: object) -> Any:
    raise RuntimeError("what Ada said")


async def test_with_the_store_away_a_returning_caller_is_no_first_meeting(
    entrypoint: Any, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.cli(
        "MSET", "user:ada:profile", "Name: Ada", "user:ada:state", '{"conversations": 3, "stage": "known"}'
    )

    async def away(*_: object) -> Any:
        raise StoreError("context", "timeout")

    monkeypatch.setattr(SqliteStore, "context", away)
    async with job(entrypoint, {"user_id": "ada"}) as talk:
        assert "Welcome back, Ada!" in greeting(talk)


@pytest.mark.parametrize("broken", ["get_user_profile_async", "read_plan"])
async def test_a_briefing_that_fails(
    entrypoint: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    monkeypatch.setattr(companion.conversation.briefing, broken, fail)
    async with job(entrypoint, {"user_id": "ada"}) as talk:
        assert "What is your name?" in greeting(talk)
    assert "going on without it" in caplog.text
    assert "what Ada said" not in caplog.text


@pytest.mark.parametrize("problem", [StoreError("recent_turns", "timeout"), RuntimeError("a bug")], ids=repr)
async def test_a_store_that_fails(
    entrypoint: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, problem: Exception
) -> None:
    class Broken(SqliteStore):
        async def get_profile(self, user_id: str) -> str | None:
            raise problem

        async def recent_turns(self, user_id: str, limit: int = 20) -> list[Turn]:
            raise problem

        async def add_turn(self, user_id: str, turn: Turn) -> None:
            raise problem

        async def save_opening(self, user_id: str, opening: Opening) -> None:
            raise problem

    monkeypatch.setattr(TurnLog.close, "__defaults__", (0.2,))
    set_runtime(Runtime(store=Broken(get_runtime().settings.home / "companion.db")))
    async with job(entrypoint, {"user_id": "ada"}) as talk:
        assert "What is your name?" in greeting(talk)
        for _ in range(2):
            assert (await talk.session.run(user_input="The train was late.")).events[-1].item.text_content
    assert "Traceback" not in caplog.text
    assert "They wait in COMPANION_HOME" in caplog.text
    assert "train" not in "".join(record.getMessage() for record in caplog.records if record.name == "companion")


async def test_a_database_that_cannot_be_opened(
    entrypoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(TurnLog.close, "__defaults__", (0.2,))
    (tmp_path / "home" / "companion.db").mkdir(parents=True)
    async with job(entrypoint, {"user_id": "ada"}) as talk:
        assert "What is your name?" in greeting(talk)
        events = (await talk.session.run(user_input="My name is Ada.")).events
        assert "cannot reach my memory" in events[-1].item.text_content
    assert "They wait in COMPANION_HOME" in caplog.text
    ours = [record.getMessage() for record in caplog.records if record.name in ("companion", "cache")]
    assert not any("My name" in line for line in ours)


async def test_a_store_that_hangs(entrypoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(SqliteStore):
        async def get_profile(self, user_id: str) -> str | None:
            await asyncio.Event().wait()
            return None

    monkeypatch.setattr(companion.conversation.briefing, "DEADLINE", 0.2)
    set_runtime(Runtime(store=Stuck(get_runtime().settings.home / "companion.db")))
    async with job(entrypoint, {"user_id": "ada"}) as talk:
        assert "What is your name?" in greeting(talk)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_redis_that_is_away(
    entrypoint: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:secret@127.0.0.1:1/0")
    caplog.set_level(logging.DEBUG)
    async with job(entrypoint, {"user_id": "ada"}) as talk:
        await talk.session.run(user_input="My name is Ada.")
        answer = (await talk.session.run(user_input="cache stats")).events[-1].item
        assert "not reachable" in answer.text_content
    assert len(await stored(tmp_path, "ada")) == 5
    async with job(entrypoint, {"user_id": "ada"}) as talk:
        assert ", Ada!" in greeting(talk)
        assert "What is your name?" not in greeting(talk)
    assert "[REDIS] Warning: Connection failed" in caplog.text
    assert "secret" not in caplog.text
