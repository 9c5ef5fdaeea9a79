"""The real worker: `agent.py` in its own processes, real rooms, Redis, SQLite, and a stand-in model over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from livekit.protocol import models

from cache import keys
from companion.phrases import dropped_call
from companion.prompts import FOLLOW_UP_PROMPT
from companion.store import SqliteStore
from tests.conftest import OURS
from tests.real.livekit.agent_process import AgentProcess
from tests.real.livekit.livekit_job import Job
from tests.real.livekit.livekit_server import LiveKitServer
from tests.real.models.openai_server import ChatRequest, OpenAIServer, Reply
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = [pytest.mark.worker, pytest.mark.asyncio(loop_scope="module")]
ROOT = Path(__file__).parents[2]
UUID = "0b9a4f5e-8a34-4a39-9f4e-2d6f0f1c7a11"
HEARD = ["dispatched", "signalling", "publisher_connected", "subscribed", "first_sound"]
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
    """Greet, execute orders ("call tool {arguments}"), and repeat anything else."""
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
class WorkerHarness:
    """A running worker and the servers it uses."""

    lk: LiveKitServer
    model: OpenAIServer
    redis: RedisServer
    process: AgentProcess
    store: SqliteStore
    ending: list[asyncio.Task[None]] = field(default_factory=list)

    async def seed_profile(self, user_id: str, profile: str) -> None:
        """Write a profile to the database as if its invalidation had been delivered already."""
        await self.store.save_profile(user_id, profile)
        await self.store.acknowledge(await self.store.pending_changes_of(user_id, ["profile"]))

    async def call(self, job: Job, tool: str, **arguments: Any) -> dict[str, Any]:
        """Have the model call a tool in this job, and return the tool's output."""
        order = f"call {tool} {json.dumps(arguments)}"
        asked = len(self.model.requests)
        await job.say(order)
        assert await job.next_reply() == "That is done."
        answered = [request for request in self.model.requests[asked:] if request.messages[-1]["role"] == "tool"]
        (output,) = [request.tool_outputs[-1] for request in answered if request.user_text == order]
        result: dict[str, Any] = json.loads(output)
        return result

    async def end(self, *jobs: Job) -> None:
        """Disconnect the users, and wait until their jobs have ended."""
        await asyncio.gather(*(job.end() for job in jobs))
        assert_no_errors(self.process)

    def end_in_background(self, *jobs: Job) -> None:
        """Disconnect the users, and let the jobs end in the background; the fixture checks how they ended.

        LiveKit waits two seconds for a transcript of what the user was saying at the disconnection.
        """
        self.ending.extend(asyncio.create_task(job.end()) for job in jobs)

    async def all_ended(self) -> None:
        """Wait for what ``end_in_background`` ends: until then it counts hits and misses, too."""
        await asyncio.gather(*self.ending)

    def requests_with(self, text: str) -> list[ChatRequest]:
        """The requests to the model that contain this text."""
        return [request for request in self.model.requests if text in json.dumps(request.json)]

    async def stored_turns(self, user_id: str) -> list[tuple[str, str]]:
        """The stored turns of this user."""
        return [(turn.role, turn.text) for turn in await self.store.recent_turns(user_id, 100)]

    def totals(self) -> Counter[str]:
        """The shared counters in system:stats."""
        reply = self.redis.cli("HGETALL", keys.system_stats())
        return Counter({name: int(count) for name, count in zip(reply[::2], reply[1::2], strict=True)})


async def wait_for_turns(store: SqliteStore, user_id: str, last: str) -> list[tuple[str, str]]:
    """Wait until the agent's turn ``last`` is stored, and return the stored turns of this user.

    A turn is audible before it is stored; disconnecting in between would interrupt it.
    """

    async def complete() -> list[tuple[str, str]]:
        turns = [(turn.role, turn.text) for turn in await store.recent_turns(user_id, 100)]
        return turns if turns[-1:] == [("assistant", last)] else []

    turns: list[tuple[str, str]] = await until(complete)
    return turns


def assert_no_errors(process: AgentProcess) -> None:
    # LiveKit reports success for a job whose entrypoint raised: only the log shows it.
    assert not re.search(r"ERROR|CRITICAL|Traceback", process.log), process.log


@asynccontextmanager
async def worker(
    command: list[str], lk: LiveKitServer, home: Path, *, killed: bool = False, **settings: str
) -> AsyncIterator[AgentProcess]:
    """Run a worker process. It must end by itself on SIGTERM, without an error in its log, unless it is ``killed``."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    env = {
        **{name: value for name, value in mine.items() if not name.lower().endswith("_proxy")},
        **lk.env,
        "COMPANION_HOME": str(home),
        "CACHE_DEADLINE_MS": "2000",  # generous: deadlines are not under test
        "CACHE_CONNECT_WAIT_MS": "5000",  # a job that finds no Redis in time reads the store, and fills nothing
        **settings,
    }
    process = await AgentProcess.start(command, cwd=home.parent, env=env)  # a directory without a developer's .env
    try:
        await lk.wait_for_worker()
        with process.explaining():
            yield process
        if not killed:
            await process.end(signal.SIGTERM)
            assert_no_errors(process)
    finally:
        await process.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def harness(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WorkerHarness]:
    """One worker, started by LiveKit's command line, shared by the tests of this module."""
    home = tmp_path_factory.mktemp("worker") / "home"
    command = ["-m", "livekit.agents", "start", str(ROOT / "agent.py"), "--dev"]
    store = SqliteStore(home / "companion.db")
    with RedisServer(tmp_path_factory.mktemp("redis")) as redis:
        async with LiveKitServer() as lk, OpenAIServer(model) as openai:
            settings = {
                "REDIS_URL": redis.url,
                "OPENAI_BASE_URL": openai.base_url,
                "OPENAI_API_KEY": "test",
                "COMPANION_PHONE_IDENTITY": "true",
            }
            async with worker(command, lk, home, **settings) as process:
                harness = WorkerHarness(lk, openai, redis, process, store)
                yield harness
                await harness.all_ended()
    await store.close()


def user(user_id: str) -> str:
    return json.dumps({"user_id": user_id})


async def test_a_conversation_from_dispatch_to_the_end(harness: WorkerHarness) -> None:
    await harness.seed_profile("ada", "Name: Ada\nLikes: chess")
    before = harness.totals()
    harness.redis.cli("SET", keys.profile("zoe"), "another user's")
    mine = keys.profile("ada"), keys.greeting_instructions("ada")

    job = await harness.lk.dispatch(metadata=user("ada"), participant_identity="not-ada", admitted=False)
    # Missed, loaded and cached while the agent waits for admission to the room.
    await until(lambda: harness.redis.cli("EXISTS", *mine) == 2, timeout=20)
    assert "room_connected" not in job.milestones
    job.admit()
    assert await job.greeting() == "Hello."
    (greeting,) = harness.requests_with("Likes: chess")
    assert "## First meeting" in greeting.instructions

    stats = await harness.call(job, "getRedisCacheStats")
    assert stats.keys() == STATS
    assert (stats["enabled"], stats["connected"], stats["status"]) == (True, True, "healthy")
    harness.redis.cli("SET", keys.settings("ada"), "{}")
    assert await harness.call(job, "invalidateCache", pattern="user:*:settings") == {
        "success": True,
        "deleted_keys": 1,
        "message": "Invalidated 1 cache entries matching 'user:*:settings'",
    }
    harness.redis.cli("SET", keys.settings("ada"), "{}")
    cleared = await harness.call(job, "clearUserCache")
    assert cleared.keys() == {"success", "deleted_keys", "message"}
    assert cleared["success"] is True
    assert cleared["deleted_keys"] >= 2
    assert harness.redis.cli("KEYS", "user:ada:*") == []
    assert harness.redis.cli("GET", keys.profile("zoe")) == "another user's"

    await job.say("I like it")
    assert await job.next_reply() == "You said I like it."
    await harness.end(job)

    turns = await harness.stored_turns("ada")
    assert turns[0] == ("assistant", "Hello.")
    assert turns[-2:] == [
        ("user", "I like it"),
        ("assistant", "You said I like it."),
    ]
    assert await harness.stored_turns("not-ada") == []
    counted = harness.totals() - before
    assert counted["cache_misses"] >= 2
    assert counted["total_requests"] == counted["cache_hits"] + counted["cache_misses"]


async def test_who_is_not_named_in_the_metadata_is_known_by_identity(harness: WorkerHarness) -> None:
    await harness.seed_profile(UUID, "Name: Uma")
    job = await harness.lk.dispatch(participant_identity=f"user-{UUID}", joined=False)
    await job.wait_until(lambda: "room_connected" in job.milestones, "the agent's connection", 30)
    assert not harness.requests_with("Name: Uma")
    await job.join()
    assert await job.greeting() == "Hello."
    assert harness.requests_with("Name: Uma")
    await job.say("I am here")
    words = [("assistant", "Hello."), ("user", "I am here"), ("assistant", "You said I am here.")]
    assert await wait_for_turns(harness.store, UUID, words[-1][1]) == words
    harness.end_in_background(job)


async def test_a_caller_on_the_phone_is_found_again_and_their_number_is_in_no_log(harness: WorkerHarness) -> None:
    await harness.seed_profile("sip_0301234567", "Likes: phones")
    job = await harness.lk.dispatch(
        participant_identity="sip_0301234567",
        kind=models.ParticipantInfo.SIP,
        attributes={"sip.phoneNumber": "0301234567", "sip.trunkPhoneNumber": "+4930999999"},
        room="call-_0301234567_x1",
    )
    assert await job.greeting() == "Hello."
    assert harness.requests_with("Likes: phones")
    await job.say("I am on the train")
    words = [("assistant", "Hello."), ("user", "I am on the train"), ("assistant", "You said I am on the train.")]
    assert await wait_for_turns(harness.store, "sip_+49301234567", words[-1][1]) == words
    assert await harness.store.get_profile("sip_0301234567") is None
    await job.leave()
    await harness.process.wait_for_log("closing agent session due to participant disconnect")
    assert job.id in harness.process.log
    assert "301234567" not in harness.process.log
    harness.end_in_background(job)


async def test_while_another_is_in_the_room_nothing_personal_is_said(harness: WorkerHarness) -> None:
    await harness.seed_profile("hal", "Likes: hats")
    job = await harness.lk.dispatch(metadata=user("hal"), participant_identity="web-4711")
    await job.greeting()
    assert (await harness.call(job, "getUserProfile"))["profile"] == "Likes: hats"
    other = await job.join_other("ivy")
    assert (await harness.call(job, "getUserProfile"))["success"] is False
    await job.say("Who am I?")
    assert await job.next_reply() == "You said Who am I?."
    (asked,) = [one for one in harness.model.requests if one.user_text == "Who am I?"]
    assert "Likes: hats" not in asked.instructions
    await job.leave_other(other)
    assert (await harness.call(job, "getUserProfile"))["profile"] == "Likes: hats"
    assert not [text for _, text in await harness.stored_turns("hal") if "Who am I" in text]
    harness.end_in_background(job)


async def test_who_joins_after_the_caller_has_left_is_greeted_as_themselves(harness: WorkerHarness) -> None:
    for name in ("jan", "kim"):
        await harness.seed_profile(name, f"Likes: {name}s")
    job = await harness.lk.dispatch(participant_identity="jan", joined=False)
    await job.wait_until(lambda: "room_connected" in job.milestones, "the agent's connection", 30)
    await job.join()
    await job.leave()  # while the session starts, or just before or after
    asked, said = len(harness.model.requests), len(job.transcripts)
    await job.replace_user("kim")
    await until(lambda: harness.requests_with("Likes: kims"), timeout=20)
    # What interrupts a greeting that is not heard yet has an answer whose words LiveKit may not send.
    await job.wait_until(lambda: any(each.finished_at for each in job.transcripts[said:]), "a greeting", 30)

    def heard() -> bool:
        return any(request.user_text == "I am Kim" for request in harness.model.requests[asked:])

    for _ in range(10):
        await job.say("I am Kim")  # after jan's greeting it may come before the session is linked to kim
        with suppress(AssertionError):
            await until(heard, timeout=3)
            break
    # Said once more it would interrupt the answer.
    await job.wait_until(lambda: any("I am Kim" in said.text for said in job.transcripts), "an answer to Kim", 30)
    # One that was made while jan was there may arrive after they have left; none is made once kim's have begun.
    later = list(dropwhile(lambda one: "Likes: kims" not in one.instructions, harness.model.requests[asked:]))
    assert not [one for one in later if "Likes: jans" in one.instructions]
    await wait_for_turns(harness.store, "kim", "You said I am Kim.")
    assert not await harness.stored_turns("jan")
    harness.end_in_background(job)


async def test_two_conversations_at_once_stay_apart(harness: WorkerHarness) -> None:
    people = {"bea": "Likes: bees", "cem": "Likes: cellos"}
    for name, profile in people.items():
        await harness.seed_profile(name, profile)
    dispatched = (harness.lk.dispatch(metadata=user(name), admitted=False) for name in people)
    jobs = dict(zip(people, await asyncio.gather(*dispatched), strict=True))
    # A profile that is read too late for the greeting is in the requests after it: this one is to be in all of them.
    await until(lambda: harness.redis.cli("EXISTS", *map(keys.profile, people)) == 2, timeout=20)
    for job in jobs.values():
        job.admit()
    await asyncio.gather(*(job.greeting() for job in jobs.values()))
    for name, job in jobs.items():
        await job.say(f"I am {name}")
    assert await asyncio.gather(*(job.next_reply() for job in jobs.values())) == [f"You said I am {n}." for n in jobs]
    assert (await harness.call(jobs["bea"], "clearUserCache"))["message"].endswith("for user bea")
    assert [harness.redis.cli("EXISTS", keys.profile(name)) for name in people] == [0, 1]
    assert (await harness.call(jobs["cem"], "getUserProfile"))["profile"] == "Likes: cellos"
    stored = {name: await wait_for_turns(harness.store, name, "That is done.") for name in people}
    harness.end_in_background(*jobs.values())

    for mine, other in (("bea", "cem"), ("cem", "bea")):
        requests = harness.requests_with(people[mine])
        assert len(requests) >= 4
        others = {id(request) for request in harness.requests_with(people[other])}
        assert not {id(request) for request in requests} & others
        turns = stored[mine]
        assert ("user", f"I am {mine}") in turns
        assert ("user", f"I am {other}") not in turns


async def test_a_second_conversation_starts_from_the_cache(harness: WorkerHarness) -> None:
    await harness.seed_profile("dan", "Likes: dunes")
    job = await harness.lk.dispatch(metadata=user("dan"))
    await job.greeting()
    await job.say("I bought a blue bicycle")
    await job.next_reply()
    await harness.end(job)

    await harness.seed_profile("dan", "Likes: deserts")  # without an invalidation in Redis
    await harness.all_ended()
    before, asked = harness.totals(), len(harness.model.requests)
    job = await harness.lk.dispatch(metadata=user("dan"))
    await job.greeting()
    (greeting,) = harness.model.requests[asked:]  # the greeting was prepared when the first conversation ended
    assert "Likes: dunes" in greeting.instructions
    assert "I bought a blue bicycle" in greeting.instructions
    await harness.end(job)

    counted = harness.totals() - before
    assert counted["cache_hits"] >= 2
    assert counted["cache_misses"] == 0

    # Half an hour later, with Redis emptied: neither a model that judges nor one that greets is asked.
    context = await harness.store.context("dan")
    assert context.opening is not None
    then = (datetime.now(UTC) - timedelta(minutes=30)).isoformat()
    plan = {**context.opening.plan, "last_seen": then}
    await harness.store.save_opening("dan", replace(context.opening, plan=plan, version=context.version))
    harness.redis.cli("DEL", keys.greeting_instructions("dan"))
    asked = len(harness.model.requests)
    job = await harness.lk.dispatch(metadata=user("dan"))
    assert await job.greeting() == context.opening.texts["follow_up"] == "Hello."
    assert harness.model.requests[asked:] == []
    harness.end_in_background(job)


async def test_without_redis_it_greets_answers_and_remembers(harness: WorkerHarness) -> None:
    await harness.seed_profile("eve", "Likes: elms")

    async def found_again() -> bool:
        return bool((await harness.call(job, "getRedisCacheStats"))["connected"])

    harness.redis.kill()
    try:
        job = await harness.lk.dispatch(metadata=user("eve"))
        assert await job.greeting() == "Hello."
        assert harness.requests_with("Likes: elms")
        stats = await harness.call(job, "getRedisCacheStats")
        assert stats.keys() == STATS
        assert (stats["connected"], stats["status"]) == (False, "disconnected")
        assert (await harness.call(job, "clearUserCache"))["success"] is False
        await job.say("My train is late")
        assert await job.next_reply() == "You said My train is late."
        harness.redis.start()
        await until(found_again, timeout=20)
        assert ("user", "My train is late") in await wait_for_turns(harness.store, "eve", "That is done.")
        harness.end_in_background(job)
    finally:
        if not harness.redis.running:
            harness.redis.start()
    warnings = [line for line in harness.process.log.splitlines() if "[REDIS] Warning" in line and job.id in line]
    assert len(warnings) == 1


async def test_who_was_cut_off_is_answered_at_once(harness: WorkerHarness) -> None:
    """The first sound was made before: no model and no voice is asked for it."""
    await asyncio.gather(*harness.ending)  # what they still ask would be counted
    harness.model.audible = lambda text: text == dropped_call("en")
    try:
        job = await harness.lk.dispatch(metadata=user("gil"))
        assert await job.greeting() == "Hello."
        await job.say("I was just")
        assert await job.next_reply() == "You said I was just."
        await harness.end(job)
        asked, spoken = len(harness.model.requests), len(harness.model.spoken)
        job = await harness.lk.dispatch(metadata=user("gil"))
        await job.wait_until(lambda: "first_sound" in job.milestones, "a sound", 30)
        assert (len(harness.model.requests), len(harness.model.spoken)) == (asked, spoken)
        assert await job.greeting() == dropped_call("en")
        steps = [step for step in sorted(job.milestones, key=job.milestones.__getitem__) if step in HEARD]
        assert steps == HEARD
        assert (len(harness.model.requests), len(harness.model.spoken)) == (asked, spoken)
        harness.end_in_background(job)
    finally:
        harness.model.audible = lambda text: False
        harness.redis.cli("DEL", *harness.redis.cli("KEYS", "speech:*"), "speech:none")


async def test_a_room_that_closes_before_anybody_comes(harness: WorkerHarness) -> None:
    """The worker's log has no error and no traceback, as at the end of each test's module."""
    job = await harness.lk.dispatch(metadata=user("late"), joined=False)
    await job.wait_until(lambda: "room_connected" in job.milestones, "the agent's connection", 30)
    await job.close_room()
    assert await job.finished(30) == "JS_SUCCESS"
    assert_no_errors(harness.process)
