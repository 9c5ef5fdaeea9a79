"""A conversation whose job was killed goes on in the next job for the same room and person."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from livekit.agents import llm

from companion.conversation import briefing, continuation
from companion.runtime import Runtime, acquire_runtime
from companion.store import Turn
from tests.companion.conversation.test_attach import Call
from tests.companion.conversation.test_attach_rooms import a_room, begin
from tests.contract.livekit.realtime_stand_in import SilentRealtime
from tests.real.livekit.job_context import job_context
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("patient")]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuation, "RENEW", 0.1)


@asynccontextmanager
async def job(
    sid: str = "RM_1", user_id: str = "ada", agent: str = "", *, model: Any = None, named: bool = True
) -> AsyncIterator[Call]:
    """A job for a room in which Ada is, or another; with the five lines."""
    acquire_runtime()  # the test's, which it closes itself
    async with (
        asyncio.timeout(30),
        job_context(a_room(user_id), json.dumps({"user_id": user_id} if named else {})) as ctx,
    ):
        ctx.job.room.sid, ctx.job.agent_name = sid, agent
        yield await begin(ctx, model=model)


async def greeted(call: Call) -> None:
    """Greet, and wait for the greeting."""
    await call.memory.greet("Greet the user.")
    await until(lambda: call.session.history.messages())


async def stored(runtime: Runtime) -> bool:
    return len(await runtime.store.recent_turns("ada")) == 3


async def conversed(call: Call, runtime: Runtime) -> None:
    """Greet, hear where the caller lives, and wait until the turns are stored."""
    await greeted(call)
    await call.say("I live in Oslo")
    await until(lambda: stored(runtime))


def spoken(call: Call) -> list[str]:
    """What was said, as the last request has it."""
    messages = [item for item in call.model.asked[-1].items if isinstance(item, llm.ChatMessage)]
    return [(message.text_content or "").strip() for message in messages if message.role != "system"]


def kill() -> None:
    """Let the jobs do nothing more for their conversations, as when they are killed."""
    for task in asyncio.all_tasks():
        if task.get_name() == "conversation-lease":
            task.cancel()


async def freeze(redis: RedisServer, *, marked: bool = True) -> None:
    """Kill the jobs, and let their leases expire; ``marked`` jobs hold a conversation in which something was said."""
    names = ("lease", "running") if marked else ("lease",)
    await until(lambda: all(redis.cli("KEYS", f"temp:*:{name}") for name in names))
    kill()
    redis.cli("DEL", *(redis.cli("KEYS", "temp:*:lease") or ["none"]))
    await until(lambda: not redis.cli("KEYS", "temp:*:lease"))


@pytest.fixture
async def known(runtime: Runtime) -> Runtime:
    await runtime.store.save_profile("ada", "Name: Ada")
    return runtime


async def test_the_next_job_goes_on(known: Runtime) -> None:
    async with job() as killed:
        await conversed(killed, known)
        kill()  # and the next job starts at once
        async with job() as call:
            assert await call.memory.greet("Greet the user.") is None
            assert call.model.asked == [], "they have been greeted"
            await call.say("Where do I live?")
            said = ["Done.", "I live in Oslo", "Done.", "Where do I live?"]
            assert spoken(call) == said
            await call.say("And now?")
            assert call.last.count("I live in Oslo") == 1
            assert "I live in Oslo" not in str(call.session.history.to_dict())
        turns = await known.store.recent_turns("ada")
        assert [turn.text.strip() for turn in turns] == [*said, "Done.", "And now?", "Done."]
        assert len({turn.conversation_id for turn in turns}) == 1
        assert (await known.store.get_state("ada") or {})["conversations"] == 1


async def test_what_is_said_before_the_lease_has_expired_goes_on(known: Runtime) -> None:
    async with job() as killed:
        await conversed(killed, known)
        kill()
        async with job() as call:  # which listens sooner than it knows what was said
            await call.say("Where do I live?")
            assert spoken(call) == (said := ["Done.", "I live in Oslo", "Done.", "Where do I live?"])
            assert await call.memory.greet("Greet the user.") is None
        turns = await known.store.recent_turns("ada")
        assert [turn.text.strip() for turn in turns] == [*said, "Done."]
        assert len({turn.conversation_id for turn in turns}) == 1


async def test_what_is_said_while_a_lease_is_waited_for_is_stored_at_the_end(
    known: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuation, "PATIENCE", 60)
    monkeypatch.setattr("companion.conversation.session_memory.DEADLINE", 0.1)
    async with job() as first:
        await greeted(first)
        async with job() as second:
            await second.say("hello")
        assert [turn.text.strip() for turn in await known.store.recent_turns("ada")] == ["hello", "Done."]


async def test_whom_the_killed_job_did_not_answer_is_answered(known: Runtime, redis_server: RedisServer) -> None:
    async with job() as killed:
        await greeted(killed)
        await killed.say("hello")
        await until(lambda: stored(known))
        (of, *_) = await known.store.recent_turns("ada")
        await known.store.add_turn("ada", Turn("user", "Are you there?", datetime.now(UTC), of.conversation_id))
        await freeze(redis_server)
        async with job() as call:
            await greeted(call)
            assert "Greet" not in call.last
            assert spoken(call)[-1] == "Are you there?"


async def test_a_caller_who_has_heard_the_greeting_and_no_more_hears_no_other(
    known: Runtime, redis_server: RedisServer
) -> None:
    async with job() as killed:
        await greeted(killed)
        await freeze(redis_server)
        async with job() as call:
            assert await call.memory.greet("Greet the user.") is None
            await call.say("hello")
            assert len(call.model.asked) == 1
        assert [turn.text.strip() for turn in await known.store.recent_turns("ada")] == ["hello", "Done."]


async def test_a_caller_who_has_heard_no_greeting_is_greeted(known: Runtime, redis_server: RedisServer) -> None:
    async with job() as killed:
        await killed.memory.known.ready()
        await freeze(redis_server, marked=False)
        async with job() as call:
            await greeted(call)
            assert "Greet the user." in call.last


async def test_of_two_jobs_that_start_at_once_one_goes_on(
    known: Runtime, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuation, "PATIENCE", 0.2)
    async with job() as killed:
        await conversed(killed, known)
        await freeze(redis_server)
        async with job() as first, job() as second:
            greetings = await asyncio.gather(*(call.memory.greet("Greet the user.") for call in (first, second)))
            assert sorted(greeting is None for greeting in greetings) == [False, True]
            for call in (first, second):
                await call.say("Where do I live?")
            assert sorted("I live in Oslo" in spoken(call) for call in (first, second)) == [False, True]
    ids = [turn.id for turn in await known.store.recent_turns("ada")]
    assert len(ids) == len(set(ids)) == 8


async def test_a_conversation_is_wrapped_up_by_a_job_in_which_nothing_more_is_said(
    known: Runtime, redis_server: RedisServer
) -> None:
    async with job() as killed:
        await conversed(killed, known)
        await freeze(redis_server)
        async with job() as call:
            assert await call.memory.greet("Greet the user.") is None
        assert (await known.store.get_state("ada") or {})["conversations"] == 1
        assert not redis_server.cli("KEYS", "temp:*")
    assert (await known.store.get_state("ada") or {})["conversations"] == 1
    assert len(await known.store.recent_turns("ada")) == 3


async def test_a_store_that_does_not_answer_delays_no_caller(
    known: Runtime, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with job() as killed:
        await conversed(killed, known)
        await freeze(redis_server)

        async def hang(_: str) -> Any:
            await asyncio.Event().wait()

        monkeypatch.setattr(continuation, "READ_DEADLINE", 0.1)
        monkeypatch.setattr(briefing, "DEADLINE", 0.1)
        async with AsyncExitStack() as next_job:
            with monkeypatch.context() as silent:
                silent.setattr(known.contexts, "get", hang)
                call = await next_job.enter_async_context(job())
                await greeted(call)  # rather twice than met with silence: they may wait for an answer
            await call.say("hello")
            assert spoken(call) == ["Done.", "hello"]


@pytest.mark.parametrize("other", [{"sid": "RM_2"}, {"user_id": "bob"}, {"agent": "another"}], ids=str)
async def test_other_rooms_people_and_agents_begin_anew(
    known: Runtime, redis_server: RedisServer, other: dict[str, str]
) -> None:
    async with job() as killed:
        await conversed(killed, known)
        await freeze(redis_server)
        async with job(**other) as call:
            await greeted(call)
            assert "Greet the user." in call.last
            assert "Done. " not in call.last


async def test_a_conversation_that_goes_on_or_has_ended_is_not_continued(
    known: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuation, "PATIENCE", 0.2)
    async with job() as first:
        await conversed(first, known)
        async with job() as second:  # a second job for the same room, by mistake
            await greeted(second)
            await second.say("I am here too")
        await first.say("And I still am")
        assert first.memory.caller is not None
    async with job() as third:
        await greeted(third)
        assert "Greet the user." in third.last
        await third.say("again")
    turns = await known.store.recent_turns("ada")
    assert len(turns) == 3 + 3 + 2 + 3
    assert len({turn.conversation_id for turn in turns}) == 3


async def test_an_answer_knows_the_caller_while_another_job_has_the_conversation(
    known: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuation, "PATIENCE", 60)
    monkeypatch.setattr("companion.conversation.session_memory.DEADLINE", 0.3)
    async with job() as first:
        await greeted(first)
        async with job() as second:
            await second.say("hello")
            assert "Name: Ada" in second.last


async def test_a_conversation_that_began_without_redis_goes_on_when_redis_is_back(
    known: Runtime, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    monkeypatch.setenv("CACHE_CONNECT_WAIT_MS", "100")
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")  # generous: a Redis that is stopped refuses at once
    own_redis.stop()
    async with job() as killed:
        await conversed(killed, known)
        own_redis.start()
        await until(lambda: len(own_redis.cli("KEYS", "temp:*")) == 2)
        await freeze(own_redis)
        async with job() as call:
            assert await call.memory.greet("Greet the user.") is None
            await call.say("Where do I live?")
            assert "I live in Oslo" in spoken(call)


async def test_a_redis_that_is_emptied_takes_nothing_away(known: Runtime, redis_server: RedisServer) -> None:
    async with job() as killed:
        await conversed(killed, known)
        await freeze(redis_server)
        async with job() as call:  # its number is not the first
            await call.memory.greet("Greet the user.")
            redis_server.cli("FLUSHALL")
            await until(lambda: redis_server.cli("KEYS", "temp:*:lease"))  # it has looked at its number before
            assert call.memory.caller is not None
            await call.say("is this stored?")
    assert "is this stored?" in [turn.text for turn in await known.store.recent_turns("ada")]


async def test_a_redis_that_is_emptied_makes_no_conversation_another_one(
    known: Runtime, redis_server: RedisServer
) -> None:
    for text in ("I live in Oslo", "I live in Rome"):
        async with job() as call:
            await greeted(call)
            await call.say(text)
        redis_server.cli("FLUSHALL")
    turns = await known.store.recent_turns("ada")
    assert len({turn.conversation_id for turn in turns}) == 2


async def test_a_job_that_was_taken_for_dead_goes_on_as_a_conversation_of_its_own(
    known: Runtime,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with job() as first:
        await conversed(first, known)
        monkeypatch.setattr(continuation, "RENEW", 0.6)  # it is cut off for a while
        await until(lambda: redis_server.cli("DEL", *redis_server.cli("KEYS", "temp:*:lease") or ["none"]) == 0)
        async with job() as second:
            assert await second.memory.greet("Greet the user.") is None
            await until(lambda: "as one of its own" in caplog.text)
            await first.say("is this stored?")
            assert first.blocks[-1] == 1
            assert (await first.say("getUserProfile {}"))["profile"] == "Name: Ada"
            await second.say("And this?")
    turns = {turn.text: turn.conversation_id for turn in await known.store.recent_turns("ada") if turn.role == "user"}
    assert sorted(turns) == ["And this?", "I live in Oslo", "getUserProfile {}", "is this stored?"]
    assert turns["I live in Oslo"] == turns["And this?"] != turns["is this stored?"] == turns["getUserProfile {}"]
    assert (await known.store.get_state("ada") or {})["conversations"] == 2


async def test_a_job_that_was_taken_for_dead_and_hears_nothing_more_counts_no_conversation(
    known: Runtime, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with job() as first:
        await conversed(first, known)
        lease = redis_server.cli("KEYS", "temp:*:lease")[0]
        redis_server.cli("SET", lease, "another job")
        await until(lambda: "as one of its own" in caplog.text)
    assert "conversations" not in (await known.store.get_state("ada") or {})


@pytest.mark.parametrize(("mutable", "named"), [(False, True), (True, True), (True, False)])
async def test_a_realtime_model_goes_on(known: Runtime, redis_server: RedisServer, mutable: bool, named: bool) -> None:
    async with job() as killed:
        await conversed(killed, known)
        await freeze(redis_server)
        async with job(model=SilentRealtime(mutable=mutable), named=named) as call:
            agent = call.session.current_agent
            await until(lambda: agent.chat_ctx.messages())
            said = [message.text_content for message in agent.chat_ctx.messages()]
            assert [(text or "").strip() for text in said] == ["Done.", "I live in Oslo", "Done."]
            assert "Oslo" not in str(call.session.history.to_dict())
            assert await call.memory.greet("Greet the user.") is None
