"""``companion start``, as the wheel installs it, holds a conversation in a room."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.packaging.conftest import Installation
from tests.real.livekit.agent_process import AgentProcess
from tests.real.livekit.livekit_server import LiveKitServer
from tests.worker.test_worker_alone import SITECUSTOMIZE

pytestmark = [pytest.mark.worker, pytest.mark.timeout(180)]


async def test_a_conversation(installed: Installation, tmp_path: Path) -> None:
    async with LiveKitServer() as lk:
        (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
        settings = {"COMPANION_HOME": str(tmp_path / "home"), "REDIS_ENABLED": "false", "PYTHONPATH": str(tmp_path)}
        env = {**os.environ, **lk.env, **settings}
        program = installed.venv / "bin" / "companion"
        # Beside the project's own agent.py: a job's process must import ours.
        process = await AgentProcess.start(["start"], cwd=installed.project, env=env, program=program)
        try:
            await lk.wait_for_worker()
            job = await lk.dispatch(metadata=json.dumps({"user_id": "ada"}))
            assert "What is your name?" in await job.greeting()
            await job.say("my name is Ada")
            assert "Ada" in await job.next_reply()
            await job.end()
            await process.end(signal.SIGTERM)
            assert "Traceback" not in process.log
        finally:
            await process.kill()
