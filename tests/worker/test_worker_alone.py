"""Real workers with a process of their own: one in production mode, and one with its jobs in threads.

Both tests run concurrently: each waits for the framework most of the time.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from cache import keys
from companion.prompts import FOLLOW_UP_PROMPT
from companion.store import SqliteStore
from tests.isolation.echo_llm import markers
from tests.isolation.log_capture import MARKER, SECRET
from tests.real.livekit.agent_process import AgentProcess
from tests.real.livekit.livekit_job import Job
from tests.real.livekit.livekit_server import LiveKitServer
from tests.real.models.openai_server import ChatRequest, OpenAIServer, Reply
from tests.real.redis.redis_server import RedisServer
from tests.worker.test_worker import ROOT, user, wait_for_turns, worker

pytestmark = [pytest.mark.worker, pytest.mark.asyncio(loop_scope="module")]

# A worker in production mode uses port 8081, and refuses jobs while the machine is loaded, by any process. Python
# imports a file of this name at its start.
SITECUSTOMIZE: Final = """
import math, sys
if "start" in sys.orig_argv:
    from livekit.agents import AgentServer
    AgentServer.__init__.__kwdefaults__.update(host="127.0.0.1", port=0, load_threshold=math.inf)
"""
THREADS: Final = f"""{SITECUSTOMIZE.rstrip()}
    from livekit.agents import JobExecutorType
    AgentServer.__init__.__kwdefaults__.update(job_executor_type=JobExecutorType.THREAD, num_idle_processes=2)
"""
USERS: Final = {"bea": f"{MARKER}01q", "cem": f"{MARKER}02q"}
CALLS: Final[dict[str, dict[str, Any]]] = {
    "getUserProfile": {},
    "getConversationContext": {},
    "recallFacts": {"query": "fact"},
    "getRedisCacheStats": {},
    "invalidateCache": {"pattern": "*"},
    "clearUserCache": {},
}


def model(body: dict[str, Any]) -> Reply | str:
    """Answer with the user markers in the prompt; on "call them all", call every tool."""
    request = ChatRequest(body, {})
    known = " ".join(sorted(markers(json.dumps(body))))
    if FOLLOW_UP_PROMPT in request.instructions:
        return json.dumps({"follow_up": True, "confidence": 0.9, "topic": f"topic of {known}"})
    if request.messages[-1]["role"] == "user" and request.user_text.startswith("call them all"):
        marker = request.user_text.split()[-1]
        remember = {
            "rememberFact": {"fact": f"a fact of {marker}"},
            "updateUserProfile": {"profile": f"Name: {marker}, again"},
        }
        return Reply.calls(*(CALLS | remember).items())
    return f"I know {known}."


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def background_tests(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    """Start the work of both tests before the first of them runs."""
    tasks = {
        what.__name__: asyncio.create_task(what(tmp_path_factory.mktemp(what.__name__)))
        for what in (threads, plain_start)
    }
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.wait(tasks.values())


async def test_two_jobs_in_threads_of_one_process(background_tests: dict[str, asyncio.Task[None]]) -> None:
    """Two concurrent conversations: no data of one appears in the other."""
    await background_tests["threads"]


async def test_plain_start_with_the_offline_voice(background_tests: dict[str, asyncio.Task[None]]) -> None:
    await background_tests["plain_start"]


async def threads(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(THREADS)
    home = tmp_path / "home"
    command = [str(ROOT / "agent.py"), "start", "--log-level", "debug"]
    store = SqliteStore(home / "companion.db")
    for name, marker in USERS.items():
        await store.save_profile(name, f"Name: {marker}")
    with RedisServer(tmp_path / "redis", password=f"{SECRET}-of-redis") as redis:
        async with (
            LiveKitServer(api_secret=SECRET * 6) as lk,
            OpenAIServer(model) as openai,
        ):
            settings = {
                "REDIS_URL": redis.url,
                "OPENAI_BASE_URL": openai.base_url,
                "OPENAI_API_KEY": f"{SECRET}-of-openai",
                "PYTHONPATH": str(tmp_path),
            }
            async with worker(command, lk, home, **settings) as process:
                jobs = await asyncio.gather(*(lk.dispatch(metadata=user(name)) for name in USERS))
                await asyncio.gather(
                    *(run_dialogue(job, marker) for job, marker in zip(jobs, USERS.values(), strict=True))
                )
                for name, marker in USERS.items():
                    await wait_for_turns(store, name, f"I know {marker}.")
                assert len(process.processes()) == 1, "the jobs are to be threads of the worker's process"
                await asyncio.gather(*(job.end() for job in jobs))
            log = process.log
        for request in openai.requests:
            assert len(markers(json.dumps(request.json))) == 1
        for name, marker in USERS.items():
            context = await store.context(name, 100)
            assert markers(repr((context, await store.search_memories(name, "", 100)))) == {marker}
            assert [turn.role for turn in context.turns] == ["assistant", "user", "assistant"]
            assert context.profile == f"Name: {marker}, again"
            cached = [redis.cli("GET", key) for key in redis.cli("KEYS", f"user:{name}:*")]
            assert markers(repr(cached)) == {marker}
            assert redis.cli("EXISTS", keys.profile(name))
    await store.close()
    assert MARKER not in log
    assert SECRET not in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert "DEBUG" in {line["level"] for line in lines}
    assert len({line["pid"] for line in lines}) == 1
    threads = [{line["tid"] for line in lines if line.get("job_id") == job.id and "tid" in line} for job in jobs]
    assert [len(some) for some in threads] == [1, 1]
    assert threads[0] != threads[1]


async def run_dialogue(job: Job, marker: str) -> None:
    """Wait for the greeting, have every tool called, and check that no other user's data is spoken."""
    assert await job.greeting() == f"I know {marker}."
    await job.say(f"call them all {marker}")
    assert await job.next_reply() == f"I know {marker}."
    assert markers("".join(stream.text for stream in job.transcripts)) == {marker}


async def plain_start(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as redis:
        await serve(tmp_path, redis)
        assert int(redis.cli("HGET", keys.system_stats(), "cache_misses")) >= 2


async def serve(tmp_path: Path, redis: RedisServer) -> None:
    """Run a worker from start to SIGTERM, which it receives during a conversation."""
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    settings = {"COMPANION_MODELS": "offline", "REDIS_URL": redis.url, "PYTHONPATH": str(tmp_path)}
    command, home = [str(ROOT / "agent.py"), "start"], tmp_path / "home"
    store = SqliteStore(home / "companion.db")
    async with LiveKitServer() as lk, worker(command, lk, home, **settings) as process:
        assert await health_check(process) == 0
        job = await lk.dispatch(participant_identity="fay")
        assert "What is your name?" in await job.greeting()
        assert job.audio_seconds == 0
        stopping = asyncio.create_task(process.end(signal.SIGTERM))
        await process.wait_for_log("draining worker")
        await job.say("My name is Fay")  # a draining worker lets conversations finish
        reply = await job.next_reply()
        assert "Fay" in reply
        turns = await wait_for_turns(store, "fay", reply)
        await job.end()
        await stopping
        assert await health_check(process) != 0
    assert [role for role, _ in turns] == ["assistant", "user", "assistant"]
    assert await store.get_profile("fay") == "Name: Fay"
    await store.close()


async def health_check(process: AgentProcess) -> int:
    """Run the container's health check against this worker's port and return its exit code."""
    (port,) = re.findall(r"HTTP server listening on [\d.]+:(\d+)", process.log)
    (line,) = re.findall(r"(?s)HEALTHCHECK.*?CMD (\[.*?\])", (ROOT / "Dockerfile").read_text())
    python, *arguments = json.loads(line.replace("8081", port))
    assert python == "python"
    asking = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.DEVNULL)
    return await asking.wait()
