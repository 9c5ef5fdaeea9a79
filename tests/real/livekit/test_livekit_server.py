"""The stand-in server with a real worker process, its job processes, and real WebRTC between them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from livekit import api

from tests.real.livekit.agent_process import AgentProcess
from tests.real.livekit.livekit_server import LiveKitServer
from tests.real.livekit.livekit_text import TextStreams, text_packets
from tests.wait import until

pytestmark = [pytest.mark.worker, pytest.mark.asyncio(loop_scope="module")]
TOY = Path(__file__).with_name("toy_agent.py")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lk() -> AsyncIterator[LiveKitServer]:
    """A server with one worker, for all tests here."""
    async with LiveKitServer() as server:
        process = await AgentProcess.start([str(TOY), "start"], cwd=TOY.parent, env={**os.environ, **server.env})
        try:
            await server.wait_for_worker()
            yield server
            await process.end(signal.SIGTERM)
        finally:
            await process.kill()


def user(name: str) -> str:
    return json.dumps({"user_id": name})


async def test_a_conversation_from_dispatch_to_the_end(lk: LiveKitServer) -> None:
    job = await lk.dispatch(metadata=user("Ann"))
    assert await job.greeting() == "Good morning, Ann."
    await job.say("Grüezi")
    assert await job.next_reply() == "You said Grüezi."
    await job.say("how is the weather?")
    assert await job.next_reply() == "The tool says sun in Bern."
    await job.wait_until(lambda: job.agent_attributes.get("lk.agent.state") == "listening", "listening", 20)
    await job.end()
    order = ["dispatched", "accepted", "assigned", "signalling", "room_connected", "first_transcription"]
    times = [job.milestones[name] for name in order]
    assert times == sorted(times)
    # The worker reports the job's end on another connection than the agent's leaving.
    await until(lambda: {"user_left", "agent_left", "ended"} <= job.milestones.keys())


async def test_two_conversations_at_once_keep_to_themselves(lk: LiveKitServer) -> None:
    ann, ben = await asyncio.gather(lk.dispatch(metadata=user("Ann")), lk.dispatch(metadata=user("Ben")))
    assert await asyncio.gather(ann.greeting(), ben.greeting()) == ["Good morning, Ann.", "Good morning, Ben."]
    await asyncio.gather(ann.say("I am Ann"), ben.say("I am Ben"))
    assert await asyncio.gather(ann.next_reply(), ben.next_reply()) == ["You said I am Ann.", "You said I am Ben."]
    await asyncio.gather(ann.end(), ben.end())


async def test_the_agent_waits_for_admission_and_then_for_the_user(lk: LiveKitServer) -> None:
    job = await lk.dispatch(participant_identity="user-42", joined=False, admitted=False)
    await job.wait_until(lambda: "signalling" in job.milestones, "the agent's knock", 20)
    assert "room_connected" not in job.milestones
    job.admit()
    await job.wait_until(lambda: "room_connected" in job.milestones, "the agent's connection", 20)
    assert job.transcripts == []
    await job.join()
    assert await job.greeting() == "Good morning, user-42."
    await job.end()


async def test_the_agent_is_heard(lk: LiveKitServer) -> None:
    job = await lk.dispatch(metadata=user("listener"))
    assert await job.greeting() == "Good morning, listener."
    await job.wait_until(lambda: job.audio_seconds > 0.3, "the sound of the greeting", 20)
    await job.end()


async def test_a_job_whose_process_dies_has_failed(lk: LiveKitServer) -> None:
    job = await lk.dispatch(metadata=user("crash"))
    assert await job.finished() == "JS_FAILED"


async def test_waiting_for_an_agent_that_never_comes_ends_with_its_job(lk: LiveKitServer) -> None:
    job = await lk.dispatch(metadata=user("stumble"))
    with pytest.raises(AssertionError, match="the job ended before words of the agent"):
        await job.greeting(timeout=30)


async def test_an_agent_may_close_the_room(lk: LiveKitServer) -> None:
    job = await lk.dispatch(metadata=user("closer"))
    assert await job.greeting() == "Good morning, closer."
    await job.say("close it")
    assert await job.finished() == "JS_SUCCESS"
    # The worker reports the job's end on another connection than the room's, and Job.wait_until gives up at that end.
    await until(lambda: {"agent_left", "room_closed"} <= job.milestones.keys())


async def test_no_participant_joins_without_a_token_of_this_server(lk: LiveKitServer) -> None:
    wrong = api.AccessToken(lk.api_key, "another secret that is long enough").to_jwt()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {wrong}"}) as client:
        for path in ("/agent", "/rtc"):
            async with client.get(lk.url.replace("ws:", "http:") + path) as response:
                assert response.status == 401


async def test_a_job_that_no_worker_takes_says_so(lk: LiveKitServer) -> None:
    with pytest.raises(AssertionError, match="no worker"):
        await lk.dispatch(agent_name="somebody-else", timeout=0.05)


async def test_a_long_text_survives_the_packets() -> None:
    text = "zähe Füße " * 5_000
    streams = TextStreams()
    packets = text_packets(text, topic="lk.chat", sender="user", sender_sid="PA_1")
    assert len(packets) > 3
    for packet in packets:
        streams.take(packet)
    (stream,) = streams
    assert stream.text == text
    assert stream.finished_at is not None
