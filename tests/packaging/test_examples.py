"""Each file in ``examples``, run as it stands there, with the installed wheel."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf import json_format
from livekit import api
from livekit.protocol import models

from companion.store import SqliteStore
from tests.conftest import OURS
from tests.packaging.conftest import ROOT, Installation
from tests.real.livekit.agent_process import AgentProcess
from tests.real.livekit.livekit_server import LiveKitServer
from tests.real.models.inference_server import InferenceServer
from tests.real.models.openai_server import ChatRequest, Reply
from tests.real.redis.redis_server import RedisServer
from tests.worker.test_worker import assert_no_errors, user
from tests.worker.test_worker_alone import SITECUSTOMIZE

pytestmark = [pytest.mark.worker, pytest.mark.timeout(180)]
EXAMPLES = ROOT / "examples"


def model(body: dict[str, Any]) -> Reply | str:
    """Keep what the user says of themselves as their profile, and say what is known of them."""
    request = ChatRequest(body, {})
    if "pass_to_bookings" in request.tools and "a table" in request.user_text:
        return Reply.call("pass_to_bookings")
    if request.messages[-1]["role"] == "user" and request.user_text.startswith("I "):
        return Reply.call("updateUserProfile", add=[f"Says: {request.user_text}"])
    return "You play chess." if "Says: I play chess" in request.instructions else "Hello."


@asynccontextmanager
async def worker(
    installed: Installation, folder: Path, script: Path, customized: str, **settings: str
) -> AsyncIterator[AgentProcess]:
    """A worker of the installed wheel, which must end by itself, with no error in its log."""
    (folder / "sitecustomize.py").write_text(customized)
    foreign = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    inherited = {name: value for name, value in foreign.items() if not name.lower().endswith("_proxy")}
    mine = {
        "COMPANION_HOME": str(folder / "home"),
        "REDIS_ENABLED": "false",
        "PYTHONPATH": f"{folder}{os.pathsep}{EXAMPLES}",
    }
    command, python = [str(script), "start"], installed.venv / "bin" / "python"
    process = await AgentProcess.start(command, cwd=folder, env=inherited | mine | settings, program=python)
    try:
        await process.wait_for_log("registered worker")
        with process.explaining():
            yield process
        await process.end(signal.SIGTERM)
        assert_no_errors(process)
    finally:
        await process.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def conversations(
    installed: Installation, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    """The conversations of both tests, which wait for the framework most of the time, at once."""
    tasks = {
        what.__name__: asyncio.create_task(what(installed, tmp_path_factory.mktemp(what.__name__)))
        for what in (starter, other_agents)
    }
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.wait(tasks.values())


@pytest.mark.asyncio(loop_scope="module")
async def test_the_starter_remembers_in_the_next_call(conversations: dict[str, asyncio.Task[None]]) -> None:
    await conversations["starter"]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_other_agents(conversations: dict[str, asyncio.Task[None]]) -> None:
    await conversations["other_agents"]


async def starter(installed: Installation, tmp_path: Path) -> None:
    async with LiveKitServer() as lk, InferenceServer(model) as inference:
        settings = {**lk.env, "LIVEKIT_INFERENCE_URL": inference.base_url}
        async with worker(installed, tmp_path, EXAMPLES / "starter.py", SITECUSTOMIZE, **settings):
            ada = {"agent_name": "my-agent", "metadata": user("ada")}
            bob = {"agent_name": "my-agent", "participant_identity": "bob"}
            first = await lk.dispatch(**ada)
            assert await first.greeting() == "Hello."
            await first.say("I play chess")
            assert await first.next_reply() == "You play chess."
            ending = asyncio.create_task(first.end())  # LiveKit waits two seconds for a last transcript
            second, other = await lk.dispatch(**ada), await lk.dispatch(**bob)
            assert await second.greeting() == "You play chess."
            assert await other.greeting() == "Hello."
            await asyncio.gather(ending, second.end(), other.end())


async def other_agents(installed: Installation, tmp_path: Path) -> None:
    (tmp_path / "realtime_stand_in.py").symlink_to(ROOT / "tests" / "contract" / "livekit" / "realtime_stand_in.py")
    store = SqliteStore(tmp_path / "home" / "companion.db")
    for user_id in ("sip_+15551234567", "ada", "eve"):
        await store.save_profile(user_id, "Says: I play chess")
    await store.close()
    script = Path(__file__).with_name("example_worker.py")
    async with LiveKitServer() as lk, InferenceServer(model) as inference:
        settings = lk.env | {"LIVEKIT_INFERENCE_URL": inference.base_url}
        async with worker(installed, tmp_path, script, "", **settings):
            await asyncio.gather(telephony(lk), handoff(lk, inference), realtime(lk), own_store(lk, tmp_path))


async def telephony(lk: LiveKitServer) -> None:
    """The trunk delivers the number without its country; the line says that it remembers, then greets."""
    job = await lk.dispatch(
        room="call-1",
        participant_identity="sip_5551234567",
        kind=models.ParticipantInfo.SIP,
        attributes={"sip.phoneNumber": "5551234567", "sip.trunkPhoneNumber": "+18005551234"},
    )
    assert "remembers your calls" in await job.next_reply()
    assert await job.greeting() == "You play chess."
    await job.end()


async def handoff(lk: LiveKitServer, inference: InferenceServer) -> None:
    job = await lk.dispatch(room="handoff-1", metadata=user("ada"))
    assert await job.greeting() == "You play chess."
    await job.say("Book me a table")
    assert await job.next_reply() == "You play chess."
    asked, *_ = [one for one in inference.requests if "You are the booking desk" in one.instructions]
    assert "Says: I play chess" in asked.instructions
    await job.end()


async def realtime(lk: LiveKitServer) -> None:
    job = await lk.dispatch(room="realtime-1", metadata=user("eve"))
    assert await job.greeting() == "You play chess."
    await job.end()


async def own_store(lk: LiveKitServer, folder: Path) -> None:
    job = await lk.dispatch(room="own-1", metadata=user("fay"))
    assert await job.greeting() == "Hello."
    await job.say("I pay with 4111 1111 1111 1111")
    assert await job.next_reply() == "Hello."
    await job.end()
    store = SqliteStore(folder / "home" / "masked.db")
    context = await store.context("fay")
    await store.close()
    assert context.profile == "Says: I pay with (card number)"
    assert [turn.text for turn in context.turns if turn.role == "user"] == ["I pay with (card number)"]


def test_five_lines_of_the_starter_are_marked() -> None:
    lines = (EXAMPLES / "starter.py").read_text().splitlines()
    without = "\n".join(line for line in lines if "  # memory" not in line)
    assert len(lines) - len(without.splitlines()) == 5
    assert not re.search("MemoryTools|attach|memory\\.", without)


def test_the_dispatch_rule() -> None:
    """LiveKit's API takes it, and it names the agent that answers."""
    text = (EXAMPLES / "dispatch-rule.json").read_text()
    request = json_format.Parse(text, api.CreateSIPDispatchRuleRequest())
    (agent,) = request.dispatch_rule.room_config.agents
    assert f'agent_name="{agent.agent_name}"' in (EXAMPLES / "telephony.py").read_text()


WEB = """
import asyncio, sys
import httpx
from fastapi_cache import app, database, lifespan

assert not {"livekit.agents", "supabase"} & set(sys.modules)


async def main():
    transport = httpx.ASGITransport(app)
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://web") as web:
        assert (await web.get("/users/ada/settings")).json() == {"voice": "warm"}
        database["ada"] = {"voice": "behind the back of the cache"}
        assert (await web.get("/users/ada/settings")).json() == {"voice": "warm"}
        await web.put("/users/ada/settings", json={"voice": "calm"})
        assert (await web.get("/users/ada/settings")).json() == {"voice": "calm"}
        assert (await web.get("/users/bob/settings")).status_code == 404
        for method in ("GET", "PUT"):
            assert (await web.request(method, "/users/*/settings", json={})).status_code == 422
        assert "*" not in database


asyncio.run(main())
"""


def test_the_cache_in_a_web_service(installed: Installation, redis_server: RedisServer) -> None:
    installed.python(WEB, REDIS_URL=redis_server.url, CACHE_DEADLINE_MS="2000", PYTHONPATH=str(EXAMPLES))
    assert redis_server.cli("EXISTS", "user:ada:settings") == 1
