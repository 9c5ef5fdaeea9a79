"""The real worker: `agent.py` in processes of its own, real rooms, a real Redis, SQLite, and a model at the wire."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cache import keys
from companion.prompts import FOLLOW_UP_PROMPT
from companion.store import SqliteStore
from tests.conftest import OURS
from tests.real.agent_process import AgentProcess
from tests.real.livekit_job import Job
from tests.real.livekit_server import LiveKitServer
from tests.real.openai_server import ChatRequest, OpenAIServer, Reply
from tests.real.redis_server import RedisServer
from tests.wait import until

pytestmark = [pytest.mark.worker, pytest.mark.asyncio(loop_scope="module")]
ROOT = Path(__file__).parent.parent
UUID = "0b9a4f5e-8a34-4a39-9f4e-2d6f0f1c7a11"
STATS = {
    "enabled",
    "connected",
    "hit_rate",
    "cache_hits",
    "cache_misses",
    "connection_errors",
    "redis_memory",
    "status",
}


def model(body: dict[str, Any]) -> Reply | str:
    """Greets, does what it is told ("call tool {arguments}"), and repeats the rest."""
    request = ChatRequest(body, {})
    said = request.user_text
    if FOLLOW_UP_PROMPT in request.instructions:
        return json.dumps({"follow_up": True, "confidence": 0.9, "topic": "what the model makes of it"})
    if request.messages[-1]["role"] == "tool":
        return "That is done."
    if said.startswith("call "):
        _, tool, *arguments = said.split(" ", 2)
        return Reply.call(tool, **json.loads("".join(arguments) or "{}"))
    return f"You said {said}." if said else "Hello."


@dataclass(frozen=True)
class House:
    """A worker and what it stands on."""

    lk: LiveKitServer
    model: OpenAIServer
    redis: RedisServer
    process: AgentProcess
    store: SqliteStore
    leaving: list[asyncio.Task[None]] = field(default_factory=list)

    async def know(self, user_id: str, profile: str) -> None:
        """Put a profile into the database, behind the cache's back: as if it had been told of it."""
        await self.store.save_profile(user_id, profile)
        await self.store.acknowledge(await self.store.pending_changes_of(user_id, ["profile"]))

    async def call(self, job: Job, tool: str, **arguments: Any) -> dict[str, Any]:
        """Have the model call a tool in this job; what the tool told the model."""
        order = f"call {tool} {json.dumps(arguments)}"
        asked = len(self.model.requests)
        await job.say(order)
        assert await job.next_reply() == "That is done."
        answered = [request for request in self.model.requests[asked:] if request.messages[-1]["role"] == "tool"]
        (output,) = [request.tool_outputs[-1] for request in answered if request.user_text == order]
        result: dict[str, Any] = json.loads(output)
        return result

    async def end(self, *jobs: Job) -> None:
        """The users hang up; all that is left to do is done when this returns."""
        await asyncio.gather(*(job.end() for job in jobs))
        no_errors(self.process)

    def part(self, *jobs: Job) -> None:
        """The same, for tests that have seen enough: the jobs end in the background, and how is looked at in the end.

        LiveKit waits two seconds for a transcript of what the user was saying as the line went dead.
        """
        self.leaving.extend(asyncio.create_task(job.end()) for job in jobs)

    def heard(self, text: str) -> list[ChatRequest]:
        """The requests to the model in which this text stands."""
        return [request for request in self.model.requests if text in json.dumps(request.json)]

    async def said(self, user_id: str) -> list[tuple[str, str]]:
        """What was stored of this user's conversations."""
        return [(turn.role, turn.text) for turn in await self.store.recent_turns(user_id, 100)]

    def totals(self) -> Counter[str]:
        """What system:stats says."""
        reply = self.redis.cli("HGETALL", keys.system_stats())
        return Counter({name: int(count) for name, count in zip(reply[::2], reply[1::2], strict=True)})


async def told(store: SqliteStore, user_id: str, last: str) -> list[tuple[str, str]]:
    """What is stored of this user's conversations, once these last words of the agent are.

    They come to the ear before they are stored, and whoever hangs up in between has interrupted them.
    """

    async def all_of_it() -> list[tuple[str, str]]:
        turns = [(turn.role, turn.text) for turn in await store.recent_turns(user_id, 100)]
        return turns if turns[-1:] == [("assistant", last)] else []

    turns: list[tuple[str, str]] = await until(all_of_it)
    return turns


def no_errors(process: AgentProcess) -> None:
    # To LiveKit a job whose entrypoint raised has ended well: only the log tells.
    assert not re.search(r"ERROR|CRITICAL|Traceback", process.log), process.log


@asynccontextmanager
async def worker(command: list[str], lk: LiveKitServer, home: Path, **settings: str) -> AsyncIterator[AgentProcess]:
    """A worker's process. It has to end by itself when told to, without an error in its log."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    env = {
        **{name: value for name, value in mine.items() if not name.lower().endswith("_proxy")},
        **lk.env,
        "COMPANION_HOME": str(home),
        "CACHE_DEADLINE_MS": "2000",  # these tests are not about it, and the machine may be busy
        **settings,
    }
    process = await AgentProcess.start(command, cwd=home.parent, env=env)  # where no .env of a developer's is
    try:
        await lk.wait_for_worker()
        yield process
        await process.end(signal.SIGTERM)
        no_errors(process)
    finally:
        await process.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One worker, as LiveKit's own command line runs it, for all tests that do not need one of their own."""
    home = tmp_path_factory.mktemp("worker") / "home"
    command = ["-m", "livekit.agents", "start", str(ROOT / "agent.py"), "--dev"]
    store = SqliteStore(home / "companion.db")
    with RedisServer(tmp_path_factory.mktemp("redis")) as redis:
        async with LiveKitServer() as lk, OpenAIServer(model) as openai:
            settings = {"REDIS_URL": redis.url, "OPENAI_BASE_URL": openai.base_url, "OPENAI_API_KEY": "test"}
            async with worker(command, lk, home, **settings) as process:
                house = House(lk, openai, redis, process, store)
                yield house
                await asyncio.gather(*house.leaving)
    await store.close()


def user(user_id: str) -> str:
    return json.dumps({"user_id": user_id})


async def test_a_conversation_from_dispatch_to_the_end(house: House) -> None:
    await house.know("ada", "Name: Ada\nLikes: chess")
    before = house.totals()
    house.redis.cli("SET", keys.profile("zoe"), "somebody else's")
    mine = keys.profile("ada"), keys.greeting_instructions("ada")

    job = await house.lk.dispatch(metadata=user("ada"), participant_identity="not-ada", admitted=False)
    # Looked up, missed, loaded and cached while the agent waits for admission to the room.
    await until(lambda: house.redis.cli("EXISTS", *mine) == 2, timeout=20)
    assert "room_connected" not in job.milestones
    job.admit()
    assert await job.greeting() == "Hello."
    (greeting,) = house.heard("Likes: chess")
    assert "## First meeting" in greeting.instructions

    stats = await house.call(job, "getRedisCacheStats")
    assert stats.keys() == STATS
    assert (stats["enabled"], stats["connected"], stats["status"]) == (True, True, "healthy")
    house.redis.cli("SET", keys.settings("ada"), "{}")
    assert await house.call(job, "invalidateCache", pattern="user:*:settings") == {
        "success": True,
        "deleted_keys": 1,
        "message": "Invalidated 1 cache entries matching 'user:*:settings'",
    }
    house.redis.cli("SET", keys.settings("ada"), "{}")
    cleared = await house.call(job, "clearUserCache")
    assert cleared.keys() == {"success", "deleted_keys", "message"}
    assert cleared["success"] is True
    assert cleared["deleted_keys"] >= 2
    assert house.redis.cli("KEYS", "user:ada:*") == []
    assert house.redis.cli("GET", keys.profile("zoe")) == "somebody else's"

    await job.say("I like it")
    assert await job.next_reply() == "You said I like it."
    await house.end(job)

    told = await house.said("ada")
    assert told[0] == ("assistant", "Hello.")
    assert told[-2:] == [
        ("user", "I like it"),
        ("assistant", "You said I like it."),
    ]
    assert await house.said("not-ada") == []
    counted = house.totals() - before
    assert counted["cache_misses"] >= 2
    assert counted["total_requests"] == counted["cache_hits"] + counted["cache_misses"]


async def test_who_is_not_named_in_the_metadata_is_known_by_identity(house: House) -> None:
    await house.know(UUID, "Name: Uma")
    job = await house.lk.dispatch(participant_identity=f"user-{UUID}", joined=False)
    await job.wait_until(lambda: "room_connected" in job.milestones, "the agent's connection", 30)
    assert not house.heard("Name: Uma")
    await job.join()
    assert await job.greeting() == "Hello."
    assert house.heard("Name: Uma")
    await job.say("I am here")
    words = [("assistant", "Hello."), ("user", "I am here"), ("assistant", "You said I am here.")]
    assert await told(house.store, UUID, words[-1][1]) == words
    house.part(job)


async def test_two_conversations_at_once_stay_apart(house: House) -> None:
    people = {"bea": "Likes: bees", "cem": "Likes: cellos"}
    for name, profile in people.items():
        await house.know(name, profile)
    jobs = dict(zip(people, await asyncio.gather(*(house.lk.dispatch(metadata=user(n)) for n in people)), strict=True))
    await asyncio.gather(*(job.greeting() for job in jobs.values()))
    for name, job in jobs.items():
        await job.say(f"I am {name}")
    assert await asyncio.gather(*(job.next_reply() for job in jobs.values())) == [f"You said I am {n}." for n in jobs]
    assert (await house.call(jobs["bea"], "clearUserCache"))["message"].endswith("for user bea")
    assert house.redis.cli("EXISTS", keys.profile("bea"), keys.profile("cem")) == 1
    assert (await house.call(jobs["cem"], "getUserProfile"))["profile"] == "Likes: cellos"
    stored = {name: await told(house.store, name, "That is done.") for name in people}
    house.part(*jobs.values())

    for mine, other in (("bea", "cem"), ("cem", "bea")):
        heard = house.heard(people[mine])
        assert len(heard) >= 4
        assert not {id(request) for request in heard} & {id(request) for request in house.heard(people[other])}
        turns = stored[mine]
        assert ("user", f"I am {mine}") in turns
        assert ("user", f"I am {other}") not in turns


async def test_a_second_conversation_starts_from_the_cache(house: House) -> None:
    await house.know("dan", "Likes: dunes")
    job = await house.lk.dispatch(metadata=user("dan"))
    await job.greeting()
    await job.say("I bought a blue bicycle")
    await job.next_reply()
    await house.end(job)

    await house.know("dan", "Likes: deserts")  # which Redis does not hear of
    before, asked = house.totals(), len(house.model.requests)
    job = await house.lk.dispatch(metadata=user("dan"))
    await job.greeting()
    (greeting,) = house.model.requests[asked:]  # how to greet was decided when the first one ended
    assert "Likes: dunes" in greeting.instructions
    assert "I bought a blue bicycle" in greeting.instructions
    await house.end(job)

    counted = house.totals() - before
    assert counted["cache_hits"] >= 2
    assert counted["cache_misses"] == 0


async def test_without_redis_it_greets_answers_and_remembers(house: House) -> None:
    await house.know("eve", "Likes: elms")

    async def found_again() -> bool:
        return bool((await house.call(job, "getRedisCacheStats"))["connected"])

    house.redis.kill()
    try:
        job = await house.lk.dispatch(metadata=user("eve"))
        assert await job.greeting() == "Hello."
        assert house.heard("Likes: elms")
        stats = await house.call(job, "getRedisCacheStats")
        assert stats.keys() == STATS
        assert (stats["connected"], stats["status"]) == (False, "disconnected")
        assert (await house.call(job, "clearUserCache"))["success"] is False
        await job.say("My train is late")
        assert await job.next_reply() == "You said My train is late."
        house.redis.start()
        await until(found_again, timeout=20)
        assert ("user", "My train is late") in await told(house.store, "eve", "That is done.")
        house.part(job)
    finally:
        if not house.redis.running:
            house.redis.start()
    warnings = [line for line in house.process.log.splitlines() if "[REDIS] Warning" in line and job.id in line]
    assert len(warnings) == 1
