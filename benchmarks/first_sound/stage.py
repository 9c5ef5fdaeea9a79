"""A real worker in rooms of a stand-in LiveKit server, with a model and a voice that take their time at the wire."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from companion.prompts import FOLLOW_UP_PROMPT
from tests.conftest import OURS
from tests.real.livekit.agent_process import AgentProcess
from tests.real.livekit.livekit_job import Job
from tests.real.livekit.livekit_server import LiveKitServer
from tests.real.models.openai_server import ChatRequest, OpenAIServer, Reply
from tests.wait import until

ROOT: Final = Path(__file__).parents[2]
FIRST_TOKEN: Final = 0.5
"""Seconds that the model takes."""
FIRST_BYTE: Final = 0.3
"""Seconds that the voice takes."""
SPEECH: Final = 0.5
"""Seconds of each speech."""
SITECUSTOMIZE: Final = """
import math, sys
if "start" in sys.orig_argv:
    from livekit.agents import AgentServer
    AgentServer.__init__.__kwdefaults__.update(host="127.0.0.1", port=0, load_threshold=math.inf, num_idle_processes=1)
"""
"""A worker as in production, but beside others on a machine that may be busy."""
SETTLED: Final = 3.0
"""Seconds in which a worker that has started settles, and its idle processes start."""
STEPS: Final = ("signalling", "room_connected", "publisher_connected", "subscribed", "first_sound")


def answer(body: dict[str, Any]) -> Reply:
    """What the model says, whoever asks."""
    request = ChatRequest(body, {})
    if FOLLOW_UP_PROMPT in request.instructions:
        text = json.dumps({"follow_up": True, "confidence": 0.9, "topic": "the chess tournament"})
    else:
        text = f"You said {request.user_text}" if request.user_text else "Welcome back, how was the chess?"
    return Reply.say(text).after(FIRST_TOKEN)


@dataclass(frozen=True)
class Start:
    """How one conversation began.

    Attributes:
        moments: seconds from the agent's arrival in the room, by step.
        models, voices: requests that were made until the first sound.
        text: what was said first.
    """

    moments: dict[str, float]
    models: int
    voices: int
    text: str

    @property
    def first_sound(self) -> float:
        """Seconds from the agent's arrival to the first sound."""
        return self.moments["first_sound"]


@dataclass
class Stage:
    """A running worker, and the servers that it uses."""

    lk: LiveKitServer
    models: OpenAIServer
    process: AgentProcess
    ending: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self, user: str) -> tuple[Job, Start]:
        """Begin a conversation, and wait for the first sound."""
        models, voices = len(self.models.requests), len(self.models.spoken)
        job = await self.lk.dispatch(metadata=json.dumps({"user_id": user}))
        await job.wait_until(lambda: "first_sound" in job.milestones, "a sound", 30.0)
        models, voices = len(self.models.requests) - models, len(self.models.spoken) - voices
        zero = job.milestones["signalling"]
        moments: dict[str, float] = {step: job.milestones[step] - zero for step in STEPS if step in job.milestones}
        return job, Start(moments, models, voices, await job.greeting())

    async def converse(self, job: Job, says: str) -> None:
        """Say something, hear the answer, and hang up; returns when the job has ended."""
        await job.say(says)
        await job.next_reply()
        await job.end(timeout=40.0)


@asynccontextmanager
async def stage(program: str, home: Path, *, speaks: Sequence[str] = (), **settings: str) -> AsyncIterator[Stage]:
    """Run a worker, until it has spoken what it ``speaks`` at its start."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    home.parent.mkdir()
    (home.parent / "sitecustomize.py").write_text(SITECUSTOMIZE)
    async with (
        LiveKitServer() as lk,
        OpenAIServer(answer, speech=SPEECH, tone=True, speech_delay=FIRST_BYTE) as models,
    ):
        env = {
            **{name: value for name, value in mine.items() if not name.lower().endswith("_proxy")},
            **lk.env,
            "COMPANION_HOME": str(home),
            "OPENAI_BASE_URL": models.base_url,
            "OPENAI_API_KEY": "test",
            "PYTHONPATH": os.pathsep.join([str(home.parent), str(ROOT)]),
            **settings,
        }
        command = ["-m", "livekit.agents", "start", str(ROOT / program)]
        process = await AgentProcess.start(command, cwd=home.parent, env=env)
        try:
            await lk.wait_for_worker()
            await until(lambda: models.spoken == list(speaks), timeout=30)
            await asyncio.sleep(SETTLED)
            running = Stage(lk, models, process)
            yield running
            await asyncio.gather(*running.ending)
            await process.end(signal.SIGTERM)
        finally:
            await process.kill()
