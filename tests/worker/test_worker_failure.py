"""A real worker whose models fail: the person hears or reads one apology, and the job ends with them in the room."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from livekit.protocol import models

from companion.store import SqliteStore
from companion.voice.failure import apology
from tests.conftest import OURS
from tests.real.livekit.agent_process import AgentProcess
from tests.real.livekit.livekit_job import Job
from tests.real.livekit.livekit_server import LiveKitServer
from tests.real.models.openai_server import OpenAIServer, Reply
from tests.real.redis.redis_server import RedisServer
from tests.wait import until
from tests.worker.test_worker import ROOT, user

pytestmark = pytest.mark.worker
SORRY = apology("en")


def model(body: dict[str, Any]) -> Reply | str:
    """The model fails for a caller whose profile, or whose utterance, says so."""
    text = json.dumps(body)
    if "No model" in text or "Are you there?" in text:
        return Reply.error(401)
    return "Hello, you cannot hear this." if "No voice" in text else "Hello."


async def texts_until_the_end(job: Job) -> list[str]:
    assert await job.finished(30) == "JS_SUCCESS"
    assert "user_left" not in job.milestones
    return [stream.text for stream in job.transcripts if stream.text]


async def test_the_models_of_a_worker_fail(tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = SqliteStore(home / "companion.db")
    for name, profile in {
        "ada": "No model",
        "bea": "No voice",
        "cem": "Fine",
        "dan": "No model",
        "eve": "No model",
    }.items():
        await store.save_profile(name, profile)
    others = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    with RedisServer(tmp_path / "redis") as redis:
        async with LiveKitServer() as lk, OpenAIServer(model) as server:
            server.speech_status = lambda text: 401 if "cannot hear" in text else 200
            env = {
                **{name: value for name, value in others.items() if not name.lower().endswith("_proxy")},
                **lk.env,
                "COMPANION_HOME": str(home),
                "REDIS_URL": redis.url,
                "OPENAI_BASE_URL": server.base_url,
                "OPENAI_API_KEY": "test",
            }
            command = ["-m", "livekit.agents", "start", str(ROOT / "agent.py"), "--dev"]
            process = await AgentProcess.start(command, cwd=tmp_path, env=env)
            try:
                await lk.wait_for_worker()
                ada, bea, cem = await asyncio.gather(
                    *(lk.dispatch(metadata=user(name)) for name in ("ada", "bea", "cem"))
                )
                assert await cem.greeting() == "Hello."
                await cem.say("Are you there?")
                heard = await asyncio.gather(*(texts_until_the_end(job) for job in (ada, bea, cem)))
                assert heard[0] == [SORRY], "the model is gone: aloud"
                assert server.spoken.count(SORRY.split(". ")[-1]) == 2
                assert heard[1][-1] == SORRY, "the voice is gone: in text"
                assert heard[1].count(SORRY) == 1
                assert heard[2] == ["Hello.", SORRY], "the model went during the conversation: aloud"

                server.speech_status = lambda text: 401
                dan = await lk.dispatch(metadata=user("dan"))
                assert await texts_until_the_end(dan) == [SORRY], "both are gone: in text"

                server.speech_status = lambda text: 200
                eve = await lk.dispatch(metadata=user("eve"), kind=models.ParticipantInfo.SIP)
                assert await texts_until_the_end(eve) == [SORRY]
                await until(lambda: "room_closed" in eve.milestones)  # a phone would stay on a silent line
                assert not any("room_closed" in job.milestones for job in (ada, bea, cem, dan))
                await process.end(signal.SIGTERM)
            finally:
                await process.kill()
    turns = await store.recent_turns("cem")
    assert [turn.text for turn in turns] == ["Hello.", "Are you there?", SORRY]
    await store.close()
    assert "the model failed (APIStatusError: status 401" in process.log
    assert "the voice failed (APIStatusError: status 401" in process.log
