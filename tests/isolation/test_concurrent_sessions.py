"""Fifty concurrent sessions in one process and one loop: no data of one appears in another."""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from livekit.agents import get_job_context, llm

from companion.identity import current_caller
from companion.runtime import Runtime, set_runtime
from companion.store import Memory, SqliteStore, Summary, Turn
from tests.agent.test_agent import Probe, job
from tests.isolation.echo_llm import EchoLLM, markers
from tests.isolation.log_capture import MARKER, SECRET, LogCapture, capture_logs
from tests.real.redis.redis_server import RedisServer
from tests.tools.conversation import Conversation

pytestmark = [pytest.mark.isolation, pytest.mark.timeout(240)]
SESSIONS: Final = 50
ROUNDS: Final = 2
MARKERS: Final = {f"person-{number:02d}": f"{MARKER}{number:02d}q" for number in range(SESSIONS)}


@pytest.fixture
def log() -> Iterator[LogCapture]:
    with capture_logs() as log:
        yield log


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", password=f"{SECRET}-of-redis") as server:
        yield server


async def seed_store(store: SqliteStore) -> None:
    """Write an earlier conversation of every user."""
    at = datetime.now(UTC) - timedelta(hours=1)
    for user, marker in MARKERS.items():
        await store.save_profile(user, f"Name: {marker}")
        await store.add_turn(user, Turn(role="user", text=f"I am {marker}", at=at, conversation_id="before"))
        await store.add_memory(user, Memory(text=f"the fact of {marker}", at=at))
        await store.save_summary(user, Summary("before", f"It was about {marker}", at))
        await store.save_state(user, {"conversations": 4, "stage": f"acquainted with {marker}"})


async def converse(talk: Conversation, user: str) -> None:
    marker, other = MARKERS[user], f"person-{(int(user[-2:]) + 1) % SESSIONS:02d}"
    for number in range(ROUNDS):
        calls: dict[str, dict[str, Any]] = {
            "who": {},
            "rememberFact": {"fact": f"{marker} has a secret {number}"},
            "recallFacts": {"query": f"fact secret {marker}"},
            "updateUserProfile": {"profile": f"Name: {marker} {number}", "user_id": other},
            "getUserProfile": {},
            "getConversationContext": {},
            "getRedisCacheStats": {},
            "invalidateCache": {"pattern": f"user:{other}:*" if number else "*"},
            "clearUserCache": {"user_id": other},
        }
        run = await talk.session.run(user_input=f"CALL {json.dumps(calls)}")
        items = [event.item for event in run.events if isinstance(event.item, llm.FunctionCallOutput)]
        answers = {item.name: item.output for item in items}
        assert not any(item.is_error for item in items)
        assert markers(str(answers)) == {marker}
        assert answers.keys() == calls.keys()
        assert answers["who"].count(f'"{user}"') == 5  # userdata, memory, this task, a task begun here, a thread
        assert f"Name: {marker}" in answers["getUserProfile"]
        assert f"It was about {marker}" in answers["getConversationContext"]
        assert f"for user {user}" in answers["clearUserCache"]
        assert markers(talk.prompt) == {marker}


async def test_fifty_sessions_at_once(
    own_redis: RedisServer, log: LogCapture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET}-of-openai")
    monkeypatch.setenv("COMPANION_MODELS", "offline")
    monkeypatch.setenv("CACHE_DEADLINE_MS", "5000")
    monkeypatch.setenv("CACHE_CONNECT_WAIT_MS", "5000")
    # Generous: deadlines are not under test.
    monkeypatch.setattr("companion.conversation.briefing.DEADLINE", 10.0)
    monkeypatch.setattr("companion.conversation.wrap_up.TIMEOUT", 60.0)
    monkeypatch.setattr("companion.conversation.session_memory.TIMEOUT", 60.0)
    monkeypatch.setattr("companion.conversation.turn_log.TurnLog.close.__defaults__", (60.0,))
    monkeypatch.chdir(tmp_path)  # importing the agent reads the .env of the working directory
    import agent

    contexts: dict[str, contextvars.Context] = {}
    tools = agent.MemoryTools

    class WithProbe(Probe):
        def __init__(self) -> None:
            super().__init__()
            self._tools = [*self._tools, *tools().tools]
            contexts[json.loads(get_job_context().job.metadata)["user_id"]] = contextvars.copy_context()

    monkeypatch.setattr(agent, "MemoryTools", WithProbe)
    database = tmp_path / "home" / "companion.db"
    before = SqliteStore(database)
    await seed_store(before)
    await before.close()
    model, all_started = EchoLLM(), asyncio.Barrier(SESSIONS)
    set_runtime(Runtime(model=model))

    async def one(user: str) -> None:
        async with job(agent.entrypoint, {"user_id": user}) as talk:
            assert talk.memory.caller.user_id == user
            greeting = str(talk.session.history.messages()[0].text_content)
            assert markers(greeting) == {MARKERS[user]}
            await all_started.wait()
            await asyncio.create_task(converse(talk, user), context=contexts[user])
            history = str([item.model_dump() for item in talk.session.history.items])
            assert markers(history) == {MARKERS[user]}
        assert current_caller() is None

    async with asyncio.TaskGroup() as group:
        for user in MARKERS:
            group.create_task(one(user))

    for request in model.requests:
        assert request.user_id is not None
        assert markers(request.text) == {MARKERS[request.user_id]}
    assert {request.user_id for request in model.requests} == set(MARKERS)
    after, in_cache = SqliteStore(database), set[str]()
    for user, marker in MARKERS.items():
        context = await after.context(user, 1_000)
        facts = await after.search_memories(user, "", 1_000)
        assert markers(repr((context, facts))) == {marker}
        assert len([turn for turn in context.turns if turn.role == "user"]) > ROUNDS
        assert len(facts) == 1 + ROUNDS
        cached = {
            key: own_redis.cli("GET", key) for key in own_redis.cli("KEYS", f"*user:{user}:*") if "lease" not in key
        }
        assert cached, "which, depends: what the end has written is cached again only if it is read after that"
        in_cache |= (here := markers(repr([*cached.values()])))
        assert here <= {marker}
    await after.close()
    assert len(in_cache) > SESSIONS / 2, "or this has tested nothing"
    assert log.lines > SESSIONS
    assert not log.leaks
    assert not log.errors
