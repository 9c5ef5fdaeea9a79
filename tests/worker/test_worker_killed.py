"""A real worker that is killed, with its jobs, in the middle of a conversation while its store is away.

What was said is stored by the next worker, in which the conversation goes on.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from companion.store import SqliteStore
from companion.writes import Spool
from tests.real.livekit.livekit_server import LiveKitServer
from tests.real.models.openai_server import OpenAIServer
from tests.real.redis.redis_server import RedisServer
from tests.wait import until
from tests.worker.test_worker import ROOT, model, user, wait_for_turns, worker

pytestmark = pytest.mark.worker
COMMAND = ["-m", "livekit.agents", "start", str(ROOT / "agent.py"), "--dev"]


async def test_what_was_said_is_stored_by_the_next_start(tmp_path: Path) -> None:
    home, spool = tmp_path / "home", Spool(tmp_path / "home")
    store = SqliteStore(home / "companion.db")
    await store.get_profile("ada")  # creates the file
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as redis:
        async with LiveKitServer() as lk, OpenAIServer(model) as openai:
            settings = {"REDIS_URL": redis.url, "OPENAI_BASE_URL": openai.base_url, "OPENAI_API_KEY": "test"}
            with closing(sqlite3.connect(home / "companion.db", isolation_level=None)) as other:
                async with worker(COMMAND, lk, home, killed=True, **settings):
                    job = await lk.dispatch(metadata=user("ada"))
                    assert await job.greeting() == "Hello."
                    other.execute("BEGIN IMMEDIATE")  # until the worker is dead
                    await job.say("I live in Oslo")
                    assert await job.next_reply() == "You said I live in Oslo."

                    def spooled() -> bool:
                        return "You said I live in Oslo." in "".join(path.read_text() for path in spool.files())

                    await until(spooled)
            assert await store.recent_turns("ada") == []
            async with worker(COMMAND, lk, home, **settings):
                next_job = await lk.dispatch(metadata=user("bea"))
                await until(lambda: not spool.files(), timeout=30)
                await next_job.greeting()
                said = [(turn.role, turn.text) for turn in await store.recent_turns("ada")]
                asked = len(openai.requests)
                resumed = await lk.dispatch(metadata=user("ada"), after=job)
                listens = "lk.agent.state", "listening"
                await resumed.wait_until(lambda: listens in resumed.agent_attributes.items(), "the agent", 20)
                await resumed.say("Where do I live?")
                assert await resumed.next_reply() == "You said Where do I live?."
                (request,) = [one for one in openai.requests[asked:] if one.user_text == "Where do I live?"]
                turns = await wait_for_turns(store, "ada", "You said Where do I live?.")
                await resumed.end()
    assert said == [("assistant", "Hello."), ("user", "I live in Oslo"), ("assistant", "You said I live in Oslo.")]
    assert turns == [*said, ("user", "Where do I live?"), ("assistant", "You said Where do I live?.")]
    assert [message["content"] for message in request.messages[2:]] == [text for _, text in turns[:-1]]
    assert len({turn.conversation_id for turn in await store.recent_turns("ada")}) == 1
    assert (await store.get_state("ada") or {})["conversations"] == 1
    await store.close()
