"""Whom a conversation of the real entrypoint is with, when several are in the room, and when they come and go."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import AgentSession, get_job_context

from companion.runtime import Runtime, set_runtime
from companion.store import SqliteStore
from tests.agent.test_agent import UUID, entrypoint, greeting, job, join, leave, name_of, stored
from tests.tools.conversation import Conversation, ObedientLLM
from tests.wait import until

pytestmark = pytest.mark.integration
__all__ = ["entrypoint"]  # the fixture
STANDARD, AGENT = rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD, rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
EGRESS, SIP = rtc.ParticipantKind.PARTICIPANT_KIND_EGRESS, rtc.ParticipantKind.PARTICIPANT_KIND_SIP
ADA = {"user_id": "ada"}


@pytest.fixture
async def known(entrypoint: Any, tmp_path: Path) -> None:
    """Ada has been here before."""
    store = SqliteStore(tmp_path / "home" / "companion.db")
    for user_id in ("ada", "~=auth0=7cada", UUID):
        await store.save_profile(user_id, "Name: Ada")
    await store.close()


def linked(talk: Conversation) -> Any:
    participant = talk.session.room_io.linked_participant
    return participant and participant.identity


@pytest.mark.parametrize(
    ("user_id", "identity", "others", "caller", "participant"),
    [
        ("ada", "web-4711", {}, "ada", "web-4711"),  # the only person is meant
        ("ada", "eve", {"ada": STANDARD}, "ada", "ada"),
        ("ada", "eve", {"ada": SIP}, "ada", "ada"),
        (UUID, "eve", {f"user-{UUID.upper()}": STANDARD}, UUID, f"user-{UUID.upper()}"),
        (f"user-{UUID}", "eve", {UUID: STANDARD}, UUID, UUID),
        ("auth0|ada", "eve", {"auth0|ada": STANDARD}, "~=auth0=7cada", "auth0|ada"),
        ("ada", "web-4711", {"ada-recorder": EGRESS, "agent-x": AGENT}, "ada", "web-4711"),
        ("ada", "eve", {"bob": STANDARD}, None, "eve"),
        ("ada", "eve", {"ada": AGENT}, "ada", "eve"),
        ("ada", "eve", {"ada": AGENT, "bob": STANDARD}, None, "eve"),
        ("ada", "*", {"sip_anonymous": SIP}, None, "*"),
    ],
)
async def test_the_participant_whom_the_metadata_means(
    entrypoint: Any,
    known: None,
    user_id: str,
    identity: str,
    others: dict[str, rtc.ParticipantKind.ValueType],
    caller: str | None,
    participant: str,
) -> None:
    async with job(entrypoint, {"user_id": user_id}, identity=identity, others=others) as talk:
        assert (name_of(talk), linked(talk)) == (caller, participant)
        assert ("Ada" in greeting(talk)) is (caller is not None)
        assert ("Ada" in talk.prompt) is (caller is not None)


async def test_several_people_and_none_that_is_meant_are_warned_of_once(
    entrypoint: Any, known: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with job(entrypoint, ADA, identity="eve", others={"bob": STANDARD}) as talk:
        await talk.session.run(user_input="My name is Eve.")
    (warning,) = (one.getMessage() for one in caplog.records if "nothing is remembered" in one.getMessage())
    assert "of the 2 people in the room none has that identity" in warning
    assert not await stored(tmp_path, "ada")
    assert not await stored(tmp_path, "eve")


@pytest.mark.parametrize("metadata", ["", ADA])
@pytest.mark.parametrize("after", [False, True])
async def test_who_leaves_before_the_session_has_started_leaves_no_session_that_waits(
    entrypoint: Any, known: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: Any, after: bool
) -> None:
    start, sessions = AgentSession.start, []

    async def replaced(session: Any, **given: Any) -> Any:
        """Ada disconnects while the session starts, before or after it is linked, and another participant joins."""
        sessions.append(session)
        (present,) = given["room"].remote_participants.values()
        if after:
            await start(session, **given)
            present.identity = "eve"
            return None
        present.identity = "eve"
        return await start(session, **given)

    monkeypatch.setattr(AgentSession, "start", replaced)
    async with job(entrypoint, metadata, identity="ada") as talk:
        assert sessions == [talk.session]
        assert name_of(talk) == (None if metadata else "eve")  # who was meant was greeted already
        assert linked(talk) == "eve"
        await talk.session.run(user_input="I am Eve.")
        assert "Ada" not in f"{talk.prompt} {talk.session.history.to_dict()}"
    assert not await stored(tmp_path, "ada")
    assert bool(await stored(tmp_path, "eve")) is not bool(metadata)


async def test_who_is_meant_and_comes_back_while_the_session_starts_is_known(
    entrypoint: Any, known: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = AgentSession.start

    async def reconnected(session: Any, **given: Any) -> Any:
        next(iter(given["room"].remote_participants.values())).identity = f"user-{UUID}"
        return await start(session, **given)

    monkeypatch.setattr(AgentSession, "start", reconnected)
    async with job(entrypoint, {"user_id": UUID}, identity=UUID) as talk:
        assert (name_of(talk), linked(talk)) == (UUID, f"user-{UUID}")
        assert "Ada" in greeting(talk)


async def test_who_joins_while_the_session_starts_hears_nothing_personal(
    entrypoint: Any, known: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = AgentSession.start

    async def joined(session: Any, **given: Any) -> Any:
        if len(given["room"].remote_participants) == 1:
            join(given["room"], "bob")
        return await start(session, **given)

    monkeypatch.setattr(AgentSession, "start", joined)
    async with job(entrypoint, ADA, identity="web-4711") as talk:
        assert (name_of(talk), linked(talk)) == (None, "web-4711")
        assert "Ada" not in f"{talk.prompt} {talk.session.history.to_dict()}"


def current_session() -> Any:
    """The job's session; None between two conversations."""
    try:
        return get_job_context().primary_session
    except RuntimeError:
        return None


async def next_session(before: AgentSession[Any]) -> Conversation:
    """The conversation after the one of this session has ended."""
    await until(lambda: current_session() not in (None, before) and current_session().history.messages())
    return Conversation(current_session(), current_session().llm)


@pytest.mark.parametrize("metadata", ["", ADA])
async def test_who_comes_when_the_caller_has_left_is_greeted(
    entrypoint: Any, known: None, tmp_path: Path, metadata: Any
) -> None:
    async with job(entrypoint, metadata, identity="ada") as talk:
        room = talk.session.room_io.room
        await talk.session.run(user_input="I live in Bergen.")
        leave(room, "ada")
        join(room, "eve")
        other = await next_session(talk.session)
        assert (name_of(other), linked(other)) == (None if metadata else "eve", "eve")
        await other.session.run(user_input="I am Eve.")
        said = f"{other.prompt} {other.session.history.to_dict()}"
        assert "Ada" not in said
        assert "Bergen" not in said
        leave(room, "eve")
        join(room, "ada")  # without waiting for what is stored of the first conversation
        again = await next_session(other.session)
        assert name_of(again) == "ada"
        assert "Ada" in again.prompt
        await again.session.run(user_input="I am back.")
    turns = await stored(tmp_path, "ada")
    assert {turn.text for turn in turns if turn.role == "user"} == {"I live in Bergen.", "I am back."}
    assert len({turn.conversation_id for turn in turns}) == 2
    assert bool(await stored(tmp_path, "eve")) is not bool(metadata)


async def test_a_room_that_stays_empty_holds_no_job_up(entrypoint: Any) -> None:
    async with job(entrypoint, identity="ada") as talk:
        await talk.session.run(user_input="My name is Ada.")
        leave(talk.session.room_io.room, "ada")
        await until(lambda: "next-caller" in {task.get_name() for task in asyncio.all_tasks()})
        assert current_session() is talk.session  # of which LiveKit makes the job's report
    left = {task.get_name() for task in asyncio.all_tasks()} - {asyncio.current_task().get_name()}
    assert not left & {"next-caller", "memory-wrap-up"}


CALLS = {
    "getUserProfile": {},
    "getConversationContext": {},
    "updateUserProfile": {"add": ["Likes: spying"]},
    "rememberFact": {"fact": "Bob was here."},
    "recallFacts": {"query": "Bob"},
    "clearUserCache": {},
    "invalidateCache": {"pattern": "*"},
}


async def test_each_tool_call_looks_at_who_is_there(entrypoint: Any, known: None, tmp_path: Path) -> None:
    set_runtime(Runtime(model=ObedientLLM()))
    async with job(entrypoint, ADA, identity="web-4711") as talk:
        assert (await talk.use("getUserProfile"))["profile"] == "Name: Ada"
        await talk.session.run(user_input="I am alone.")
        room = talk.session.room_io.room
        join(room, "bob")
        for tool, arguments in CALLS.items():
            answer = await talk.use(tool, **arguments)
            assert answer["success"] is False
            assert "do not know who you are" in answer["message"]
        await talk.session.run(user_input="I am Bob.")
        assert "Ada" not in talk.prompt
        del room.remote_participants["PA_bob"]
        assert (await talk.use("getUserProfile"))["profile"] == "Name: Ada"
        assert "Ada" in talk.prompt
        join(room, "ada")  # who is meant is another one
        assert (await talk.use("getUserProfile"))["success"] is False
    said = [turn.text for turn in await stored(tmp_path, "ada")]
    assert "I am alone." in said
    assert "I am Bob." not in said
    assert not any("spying" in text or "Bob was here" in text for text in said)


async def test_the_last_words_of_who_has_left_are_kept(entrypoint: Any, known: None, tmp_path: Path) -> None:
    set_runtime(Runtime(model=ObedientLLM()))
    async with job(entrypoint, ADA, identity="web-4711") as talk:
        talk.session.room_io.room.remote_participants.clear()
        assert (await talk.use("rememberFact", fact="The key is under the mat."))["success"] is True
        join(talk.session.room_io.room, "eve")
        assert (await talk.use("recallFacts", query="key"))["success"] is False
    assert any("under the mat" in turn.text for turn in await stored(tmp_path, "ada"))
