"""A real worker that is killed, with its jobs, in the middle of a conversation while its store is away.

What was said is stored by the next worker, in which the conversation goes on. Who heard half a greeting is greeted.
Jobs are killed while they prepare a greeting, too; and the next worker has another voice.
"""

from __future__ import annotations

import asyncio
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
from tests.worker.preparing import LONG, Preparing
from tests.worker.test_worker import ROOT, user, wait_for_turns, worker

# Two workers, one after the other, take a minute on a busy machine.
pytestmark = [pytest.mark.worker, pytest.mark.timeout(240)]
COMMAND = ["-m", "livekit.agents", "start", str(ROOT / "agent.py"), "--dev"]


async def test_what_was_said_is_stored_by_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, spool = tmp_path / "home", Spool(tmp_path / "home")
    store = SqliteStore(home / "companion.db")
    await store.save_profile("bea", "Likes: bees")
    preparing = Preparing(store, home / "companion.db")
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as redis:
        async with LiveKitServer() as lk, OpenAIServer(preparing.model) as openai:
            settings = {"REDIS_URL": redis.url, "OPENAI_BASE_URL": openai.base_url, "OPENAI_API_KEY": "test"}
            with closing(sqlite3.connect(home / "companion.db", isolation_level=None)) as other:
                async with worker(COMMAND, lk, home, killed=True, **settings) as process:
                    short = openai.speech
                    # The instance's method: a greeting that lasts until the worker is killed.
                    monkeypatch.setattr(openai, "speech", lambda text: (1200 if text == LONG else 1) * short(text))
                    others = asyncio.create_task(preparing.killed(process, lk, openai, redis))
                    job = await lk.dispatch(metadata=user("ada"))
                    assert await job.greeting() == "Hello."
                    await others
                    greeted = await lk.dispatch(metadata=user("bea"))
                    await greeted.wait_until(lambda: "first_transcription" in greeted.milestones, "a greeting", 30)
                    other.execute("BEGIN IMMEDIATE")  # until the worker is dead
                    await job.say("I live in Oslo")
                    assert await job.next_reply() == "You said I live in Oslo."

                    def spooled() -> bool:
                        return "You said I live in Oslo." in "".join(path.read_text() for path in spool.files())

                    await until(spooled)
            assert await store.recent_turns("ada") == await store.recent_turns("bea") == []
            assert [stream.finished_at for stream in greeted.transcripts] == [None], "in the middle of it"
            monkeypatch.undo()
            preparing.let_pass()
            async with worker(COMMAND, lk, home, **{**settings, "OPENAI_BASE_URL": openai.other_url}):
                other_voice = asyncio.create_task(preparing.another_voice(lk, openai))
                next_job = await lk.dispatch(metadata=user("bea"), after=greeted)
                await until(lambda: not spool.files(), timeout=30)
                assert await next_job.greeting() == LONG
                await next_job.say("I am here")
                assert await next_job.next_reply() == "You said I am here."
                bea = await wait_for_turns(store, "bea", "You said I am here.")
                said = [(turn.role, turn.text) for turn in await store.recent_turns("ada")]
                asked = len(openai.requests)
                resumed = await lk.dispatch(metadata=user("ada"), after=job)
                listens = "lk.agent.state", "listening"
                await resumed.wait_until(lambda: listens in resumed.agent_attributes.items(), "the agent", 20)
                await resumed.say("Where do I live?")
                assert await resumed.next_reply() == "You said Where do I live?."
                *_, request = [one for one in openai.requests[asked:] if one.user_text == "Where do I live?"]
                turns = await wait_for_turns(store, "ada", "You said Where do I live?.")
                await other_voice
                await resumed.end()
    assert said == [("assistant", "Hello."), ("user", "I live in Oslo"), ("assistant", "You said I live in Oslo.")]
    assert turns == [*said, ("user", "Where do I live?"), ("assistant", "You said Where do I live?.")]
    assert [message["content"] for message in request.messages[2:]] == [text for _, text in turns[:-1]]
    assert bea == [("assistant", LONG), ("user", "I am here"), ("assistant", "You said I am here.")]
    assert len({turn.conversation_id for turn in await store.recent_turns("ada")}) == 1
    assert (await store.get_state("ada") or {})["conversations"] == 1
    await store.close()
