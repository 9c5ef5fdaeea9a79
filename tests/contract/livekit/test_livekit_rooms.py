"""The behaviour of a session in a LiveKit room that the entrypoint depends on. See docs/upgrading.md."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import create_autospec

import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.ipc.mock_room import create_mock_room
from livekit.agents.telemetry.pii import is_pii_attribute
from livekit.agents.testing import fake_job_context
from livekit.agents.voice.room_io import RoomOptions

from tests.contract.livekit.livekit_stand_in import SOON, PlayedLLM

pytestmark = pytest.mark.integration


def participant(identity: str) -> Any:
    """A participant in the room."""
    one = create_autospec(rtc.RemoteParticipant, instance=True)
    one.identity, one.sid = identity, f"PA_{identity}"
    one.kind = rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD
    one.state = rtc.ParticipantState.PARTICIPANT_STATE_ACTIVE
    one.disconnect_reason = rtc.DisconnectReason.CLIENT_INITIATED
    return one


@pytest.fixture
def room() -> Any:
    """LiveKit's own stand-in for a room: eve is there, and ada came after her."""
    room = create_mock_room.__wrapped__()
    room.remote_participants = {one.identity: one for one in map(participant, ("eve", "ada"))}
    return room


@pytest.fixture
async def in_a_room(room: Any) -> AsyncIterator[Any]:
    """Starts a session in text in the room."""
    sessions: list[AgentSession[Any]] = []

    async def start(**options: Any) -> AgentSession[Any]:
        session: AgentSession[Any] = AgentSession(llm=PlayedLLM(), vad=None, turn_handling={"turn_detection": None})
        sessions.append(session)
        room_options = RoomOptions(audio_input=False, audio_output=False, **options)
        await session.start(Agent(instructions="-"), room=room, room_options=room_options)
        return session

    with fake_job_context(room=room):
        async with asyncio.timeout(SOON):
            yield start
        for session in sessions:
            await session.aclose()


async def test_a_session_is_linked_to_the_identity_it_is_given(in_a_room: Any) -> None:
    """``companion.conversation.participant`` (``linked_participant``): a program may choose whom a session is with."""
    session = await in_a_room(participant_identity="ada")
    assert session.room_io.linked_participant.identity == "ada"


async def test_a_session_is_linked_to_no_other_participant(in_a_room: Any) -> None:
    """``companion.conversation.participant`` (``linked_participant``): no other participant replaces a missing one."""
    session = await in_a_room(participant_identity="bob")
    assert session.room_io.linked_participant is None


async def test_a_session_can_be_linked_to_another_participant(in_a_room: Any) -> None:
    """``companion.conversation.participant``: ``set_participant`` counts at once, and no event of the session says so.

    So the linked participant is compared with the caller at each use.
    """
    session = await in_a_room(participant_identity="ada")
    events: list[str] = []
    for name in ("conversation_item_added", "user_state_changed", "agent_state_changed"):
        session.on(name, lambda _, name=name: events.append(name))
    session.room_io.set_participant("eve")
    assert session.room_io.linked_participant.identity == "eve"
    assert events == []


async def test_another_session_can_take_the_place_of_one_that_was_closed(room: Any) -> None:
    """``companion.worker`` (``_primary_agent_session``): the next caller's session is closed with the job.

    A job has one primary session, which LiveKit sets only if there is none.
    """
    sessions = []
    with fake_job_context(room=room) as ctx:
        async with asyncio.timeout(SOON):
            for identity in ("bob", "ada"):
                session: AgentSession[Any] = AgentSession(
                    llm=PlayedLLM(), vad=None, turn_handling={"turn_detection": None}
                )
                options = RoomOptions(audio_input=False, audio_output=False, participant_identity=identity)
                await session.start(Agent(instructions="-"), room=room, room_options=options)
                assert ctx.primary_session is session
                sessions.append(session)
                if identity == "bob":  # who is not there
                    await session.aclose()
                    ctx._primary_agent_session = None
            assert sessions[1].room_io.linked_participant.identity == "ada"
            await sessions[1].aclose()


async def test_text_from_another_participant_is_ignored(in_a_room: Any, room: Any) -> None:
    """``companion.conversation.participant``: no other participant can ask about the linked one."""
    session = await in_a_room(participant_identity="ada")
    ((_, receive),) = (call.args for call in room.register_text_stream_handler.call_args_list)
    for sender in ("eve", "ada"):
        text = create_autospec(rtc.TextStreamReader, instance=True)
        text.read_all.return_value = f"I am {sender}"
        receive(text, sender)
    answered = asyncio.Event()
    session.on("conversation_item_added", lambda event: answered.set() if event.item.role == "assistant" else None)
    await answered.wait()
    assert [message.text_content for message in session.history.messages() if message.role == "user"] == ["I am ada"]


async def test_the_log_names_a_participant_in_a_field_of_that_name(
    in_a_room: Any, room: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """``companion.voice.log_redaction``: removes this field and the personal ones; an identity may be an address."""
    with caplog.at_level(logging.DEBUG, "livekit.agents"):
        session = await in_a_room(participant_identity="ada")
        for name, handler in (call.args for call in room.on.call_args_list if len(call.args) == 2):
            if name == "participant_disconnected":
                handler(session.room_io.linked_participant)
    named = [record for record in caplog.records if "ada" in str(record.__dict__.values())]
    assert named
    for record in named:
        assert record.name == "livekit.agents"
        assert "ada" not in record.getMessage()
        public = [name for name in record.__dict__ if name != "participant" and not is_pii_attribute(name)]
        assert "ada" not in str([record.__dict__[name] for name in public])
