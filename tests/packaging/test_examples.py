"""Each file in ``examples``, run as it stands there, with the installed wheel."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.conftest import ROOT, Installation
from tests.real.agent_process import AgentProcess
from tests.real.inference_server import InferenceServer
from tests.real.livekit_server import LiveKitServer
from tests.real.openai_server import ChatRequest, Reply
from tests.test_worker import assert_no_errors, user
from tests.test_worker_alone import SITECUSTOMIZE

pytestmark = [pytest.mark.worker, pytest.mark.timeout(180)]
EXAMPLES = ROOT / "examples"


def model(body: dict[str, Any]) -> Reply | str:
    """Keep what the user says of themselves as their profile, and say what is known of them."""
    request = ChatRequest(body, {})
    if request.messages[-1]["role"] == "user" and request.user_text.startswith("I "):
        return Reply.call("updateUserProfile", add=[f"Says: {request.user_text}"])
    return "You play chess." if "Says: I play chess" in request.instructions else "Hello."


@asynccontextmanager
async def worker(
    installed: Installation, folder: Path, script: Path, customized: str, **settings: str
) -> AsyncIterator[AgentProcess]:
    """A worker of the installed wheel, which must end by itself, with no error in its log."""
    (folder / "sitecustomize.py").write_text(customized)
    inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    mine = {"COMPANION_HOME": str(folder / "home"), "REDIS_ENABLED": "false", "PYTHONPATH": str(folder)}
    command, python = [str(script), "start"], installed.venv / "bin" / "python"
    process = await AgentProcess.start(command, cwd=folder, env=inherited | mine | settings, program=python)
    try:
        yield process
        await process.end(signal.SIGTERM)
        assert_no_errors(process)
    finally:
        await process.kill()


async def test_the_starter_remembers_in_the_next_call(installed: Installation, tmp_path: Path) -> None:
    async with LiveKitServer() as lk, InferenceServer(model) as inference:
        settings = {**lk.env, "LIVEKIT_INFERENCE_URL": inference.base_url}
        async with worker(installed, tmp_path, EXAMPLES / "starter.py", SITECUSTOMIZE, **settings):
            ada = {"agent_name": "my-agent", "metadata": user("ada")}
            bob = {"agent_name": "my-agent", "participant_identity": "bob"}
            first = await lk.dispatch(**ada)
            assert await first.greeting() == "Hello."
            await first.say("I play chess")
            assert await first.next_reply() == "You play chess."
            await first.end()
            second, other = await lk.dispatch(**ada), await lk.dispatch(**bob)
            assert await second.greeting() == "You play chess."
            assert await other.greeting() == "Hello."
            await asyncio.gather(second.end(), other.end())
