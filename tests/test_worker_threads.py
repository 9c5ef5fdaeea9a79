"""The real worker with its jobs in threads of one process: two conversations at once, and nothing of one in another."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

from cache import keys
from companion.continuity import PROMPT
from companion.store import SqliteStore
from tests.isolation.ear import MARK, SECRET
from tests.isolation.echo import marks
from tests.real.livekit_job import Job
from tests.real.livekit_server import LiveKitServer
from tests.real.openai_server import ChatRequest, OpenAIServer, Reply
from tests.real.redis_server import RedisServer
from tests.test_worker import ROOT, SITECUSTOMIZE, told, user, worker

THREADS: Final = f"""{SITECUSTOMIZE.rstrip()}
    from livekit.agents import JobExecutorType
    AgentServer.__init__.__kwdefaults__.update(job_executor_type=JobExecutorType.THREAD, num_idle_processes=2)
"""
PEOPLE: Final = {"bea": f"{MARK}01q", "cem": f"{MARK}02q"}
CALLS: Final[dict[str, dict[str, Any]]] = {
    "getUserProfile": {},
    "getConversationContext": {},
    "recallFacts": {"query": "fact"},
    "getRedisCacheStats": {},
    "invalidateCache": {"pattern": "*"},
    "clearUserCache": {},
}


def model(body: dict[str, Any]) -> Reply | str:
    """Says by which words people are known in what it was shown; told to call the tools, it calls them all."""
    request = ChatRequest(body, {})
    known = " ".join(sorted(marks(json.dumps(body))))
    if PROMPT in request.instructions:
        return json.dumps({"follow_up": True, "confidence": 0.9, "topic": f"topic of {known}"})
    if request.messages[-1]["role"] == "user" and request.user_text.startswith("call them all"):
        word = request.user_text.split()[-1]
        remember = {
            "rememberFact": {"fact": f"a fact of {word}"},
            "updateUserProfile": {"profile": f"Name: {word}, again"},
        }
        return Reply.calls(*(CALLS | remember).items())
    return f"I know {known}."


async def test_two_jobs_in_threads_of_one_process(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(THREADS)
    home = tmp_path / "home"
    command = [str(ROOT / "agent.py"), "start", "--log-level", "debug"]
    store = SqliteStore(home / "companion.db")
    for name, word in PEOPLE.items():
        await store.save_profile(name, f"Name: {word}")
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
                jobs = await asyncio.gather(*(lk.dispatch(metadata=user(name)) for name in PEOPLE))
                await asyncio.gather(*(live(job, word) for job, word in zip(jobs, PEOPLE.values(), strict=True)))
                for name, word in PEOPLE.items():
                    await told(store, name, f"I know {word}.")
                assert len(process._group()) == 1, "the jobs are to be threads of the worker's process"
                await asyncio.gather(*(job.end() for job in jobs))
            log = process.log
        for request in openai.requests:
            assert len(marks(json.dumps(request.json))) == 1
        for name, word in PEOPLE.items():
            context = await store.context(name, 100)
            assert marks(repr((context, await store.search_memories(name, "", 100)))) == {word}
            assert [turn.role for turn in context.turns] == ["assistant", "user", "assistant"]
            assert context.profile == f"Name: {word}, again"
            cached = [redis.cli("GET", key) for key in redis.cli("KEYS", f"user:{name}:*")]
            assert marks(repr(cached)) == {word}
            assert redis.cli("EXISTS", keys.profile(name))
    await store.close()
    assert MARK not in log
    assert SECRET not in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert "DEBUG" in {line["level"] for line in lines}
    assert len({line["pid"] for line in lines}) == 1
    threads = [{line["tid"] for line in lines if line.get("job_id") == job.id and "tid" in line} for job in jobs]
    assert [len(some) for some in threads] == [1, 1]
    assert threads[0] != threads[1]


async def live(job: Job, word: str) -> None:
    """Be greeted, have every tool called, and hear of nobody else."""
    assert await job.greeting() == f"I know {word}."
    await job.say(f"call them all {word}")
    assert await job.next_reply() == f"I know {word}."
    assert marks("".join(stream.text for stream in job.transcripts)) == {word}
