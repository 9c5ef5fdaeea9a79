"""The next greeting is prepared when a conversation has ended, and said at the next start while it is right."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, llm
from livekit.agents.beta import Instructions

from cache import get_redis_cache, keys, use_redis_cache
from companion import Caller, attach, save_user_profile_async, use_caller
from companion.conversation import session_memory
from companion.conversation.opening import next_opening
from companion.conversation.opening.greeting import read_plan
from companion.conversation.opening.plan import Plan
from companion.conversation.opening.preparation import Preparation
from companion.conversation.opening.prompt import GreetingPrompt
from companion.conversation.opening.time_words import may_be_kept
from companion.conversation.session_memory import SessionMemory
from companion.conversation.wrap_up import wrap_up
from companion.memory.context import add_memory_async, save_user_state_async
from companion.memory.erasure import erase_user
from companion.memory.forgetting import forget_fact_async
from companion.prompts import FOLLOW_UP_PROMPT, SUMMARY_PROMPT
from companion.runtime import Runtime, acquire_runtime
from companion.store import Memory, Opening, SqliteStore, StoreError, Turn
from companion.voice.agent import CompanionAgent, lasting_instructions
from companion.voice.prepared_speech import NoSpeech
from tests.companion.conversation import opening_race
from tests.companion.scripted import ScriptedLLM
from tests.contract.livekit.livekit_stand_in import PlayedLLM
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration
PROMPT: Final = GreetingPrompt("Be kind.", "Greet them.", "en")
FOLLOW_UP: Final = "Welcome back, Ada! How is the chess?"
FRESH: Final = "Ada, how good to hear you!"
LIVE: Final = "Hello from the model."


class Writer(ScriptedLLM):
    """Decides on a follow-up, sums up, and writes greetings."""

    def chat(self, *, chat_ctx: llm.ChatContext, **options: Any) -> Any:
        system, last = (chat_ctx.items[index].text_content or "" for index in (0, -1))
        says = {
            FOLLOW_UP_PROMPT: json.dumps({"follow_up": True, "confidence": 0.9, "topic": "the chess tournament"}),
            SUMMARY_PROMPT: "They talked about chess.",
        }.get(system, FOLLOW_UP if "## Follow-up" in last else FRESH)
        self.asked.append(chat_ctx)
        return ScriptedLLM(says, fails=self.fails).chat(chat_ctx=chat_ctx, **options)

    @property
    def systems(self) -> list[str]:
        """The prompt of each request."""
        return [asked.items[0].text_content or "" for asked in self.asked]


@pytest.fixture
def model() -> ScriptedLLM:
    return Writer()


def said(hours_ago: float, text: str = "I prepare a chess tournament") -> Turn:
    return Turn("user", text, datetime.now(UTC) - timedelta(hours=hours_ago), "c1")


async def prepare(runtime: Runtime, hours_ago: float = 1.0, prompt: GreetingPrompt | None = PROMPT) -> None:
    """Prepare the next greeting of Ada, who was last here so many hours ago."""
    await runtime.store.add_turn("ada", said(hours_ago))
    with use_caller(Caller("ada")):
        await next_opening.prepare_opening("ada", prompt, NoSpeech())


@asynccontextmanager
async def session(agent: Agent | None = None) -> AsyncIterator[tuple[AgentSession[Any], SessionMemory, PlayedLLM]]:
    """A session of Ada in text."""
    talking = PlayedLLM(lambda _: LIVE)
    speech: AgentSession[Any] = AgentSession(llm=talking, vad=None, turn_handling={"turn_detection": None})
    acquire_runtime()  # the test's, which it closes itself
    memory = await attach(speech, caller=Caller("ada"))
    async with speech:
        await speech.start(agent or Agent(instructions="Be kind."))
        yield speech, memory, talking
    await memory.aclose()


async def greeted(agent: Agent | None = None, instructions: str = PROMPT.instructions) -> tuple[str, int]:
    """What Ada hears first, and how often the session's model was asked before."""
    async with session(agent) as (speech, memory, talking):
        handle = await memory.greet(instructions)
        assert handle is not None
        await handle
        return (speech.history.messages()[-1].text_content or "").strip(), len(talking.asked)


# -- said at the next start ----------------------------------------------------------------------------------------


async def test_a_prepared_greeting_is_said_without_a_model(runtime: Runtime, model: Writer) -> None:
    await prepare(runtime)
    asked = len(model.asked)
    assert await greeted() == (FOLLOW_UP, 0)
    await (await get_redis_cache()).delete(keys.greeting_instructions("ada"))
    assert await greeted() == (FOLLOW_UP, 0)
    assert len(model.asked) == asked, "no model judges while a plan of this version exists"


@pytest.mark.parametrize(
    ("hours", "first"), [(0.01, LIVE), (0.1, FOLLOW_UP), (71, FOLLOW_UP), (73, FRESH), (24 * 29, FRESH)]
)
async def test_the_clock_decides_at_the_start(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, hours: float, first: str
) -> None:
    """Within two minutes the call was cut off; after three days its thread is not picked up."""
    await prepare(runtime)
    then = datetime.now(UTC) - timedelta(hours=hours)
    opening = (await runtime.store.context("ada")).opening
    assert opening is not None
    await runtime.store.save_opening("ada", replace(opening, plan={**opening.plan, "last_seen": then.isoformat()}))
    await (await get_redis_cache()).delete(keys.greeting_instructions("ada"))
    assert await greeted() == (first, int(first == LIVE))


CHANGES: Final[dict[str, Callable[[Runtime], Awaitable[object]]]] = {
    "a profile": lambda _: save_user_profile_async("Name: Eve"),
    "a fact": lambda _: add_memory_async(Memory("hates chess", datetime.now(UTC))),
    "a forgotten fact": lambda _: forget_fact_async("plays chess"),
    "a state": lambda _: save_user_state_async({"stage": "familiar"}),
    "an erasure": lambda _: erase_user("ada"),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_after_an_acknowledged_change_the_greeting_is_made_anew(runtime: Runtime, name: str) -> None:
    with use_caller(Caller("ada")):
        await add_memory_async(Memory("plays chess", datetime.now(UTC)))
        await prepare(runtime)
        assert (await read_plan("ada")).text(PROMPT.hash) == FOLLOW_UP
        await CHANGES[name](runtime)
        assert (await read_plan("ada")).text(PROMPT.hash) == ""
    assert await greeted() == (LIVE, 1)


async def test_a_change_by_hand_counts_when_the_copy_is_gone(runtime: Runtime) -> None:
    await prepare(runtime)
    await runtime.store.save_profile("ada", "Name: Eve")  # past the cache, as in a dashboard
    await (await get_redis_cache()).delete(keys.greeting_instructions("ada"))
    assert await greeted() == (LIVE, 1)


def given(text: str) -> llm.ChatContext:
    """What a program may give an agent beside its instructions."""
    context = llm.ChatContext.empty()
    context.add_message(role="system", content=text)
    return context


@pytest.mark.parametrize(
    ("agent", "instructions"),
    [
        (Agent(instructions="Be rude."), PROMPT.instructions),
        (Agent(instructions="Be kind."), "Greet them in verse."),
        (Agent(instructions=Instructions("Be kind.", audio="Be brief.")), PROMPT.instructions),
        (Agent(instructions="Be kind.", chat_ctx=given("Ada has not paid.")), PROMPT.instructions),
    ],
)
async def test_it_is_for_one_prompt(runtime: Runtime, agent: Agent, instructions: str) -> None:
    await prepare(runtime)
    assert await greeted(agent, instructions) == (LIVE, 1)


async def test_it_is_for_one_language_and_wording(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PROMPT.hash != replace(PROMPT, language="de").hash
    before = PROMPT.hash
    monkeypatch.setattr("companion.prompts.PREPARED", "Be brief.")
    assert PROMPT.hash != before


async def test_it_is_not_said_in_the_middle_of_a_conversation(runtime: Runtime) -> None:
    """A greeting of a second agent, or one that gets an earlier conversation: the model knows what was said."""
    await prepare(runtime)
    async with session() as (speech, memory, _):
        await (await memory.greet(PROMPT.instructions))  # type: ignore[misc]  # it greets
        await speech.run(user_input="The chess is over, I quit.")
        speech.update_agent(Agent(instructions="Be kind."))
        await (await memory.greet(PROMPT.instructions))  # type: ignore[misc]  # it greets
        heard = [message.text_content.strip() for message in speech.history.messages() if message.text_content]
    assert heard == [FOLLOW_UP, "The chess is over, I quit.", LIVE, LIVE]
    await prepare(runtime)
    earlier = llm.ChatContext.empty()
    earlier.add_message(role="user", content="The chess is over, I quit.")
    assert await greeted(Agent(instructions="Be kind.", chat_ctx=earlier)) == (LIVE, 1)


def test_what_changes_with_each_call_does_not_count() -> None:
    personas = {
        lasting_instructions(Agent(instructions=Instructions("Be kind.", audio="Be brief.", dynamic=text)))
        for text in ("It is noon.", "It is one.")
    }
    assert personas == {"Be kind.\n\nBe brief."}


def test_the_clock_in_an_agents_instructions_does_not_count() -> None:
    agent = CompanionAgent(language="en")
    assert "## Date and time" in agent.instructions
    assert "## Date and time" not in lasting_instructions(agent)
    assert agent.instructions.startswith(lasting_instructions(agent))


async def test_another_person_who_comes_meanwhile_is_not_greeted_with_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the speech is looked for."""
    await prepare(runtime)
    async with session() as (speech, memory, _):

        class Slow(NoSpeech):
            async def find(self, user_id: str | None, text: str) -> AsyncIterator[rtc.AudioFrame] | None:
                monkeypatch.setattr(memory.partner, "begin", lambda: None)
                return None

        monkeypatch.setattr(memory._greeter._preparation, "speech", Slow())  # private: stands in for a slow Redis
        handle = await memory.greet(PROMPT.instructions)
        assert handle is not None
        await handle
        assert (speech.history.messages()[-1].text_content or "").strip() == LIVE


async def test_its_speech_is_found_and_played(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str | None, str]] = []

    class Keeps(NoSpeech):
        async def find(self, user_id: str | None, text: str) -> AsyncIterator[rtc.AudioFrame] | None:
            asked.append((user_id, text))
            return _silence()

    monkeypatch.setattr(session_memory, "speech_of", lambda *_: Keeps())
    await prepare(runtime)
    assert await greeted() == (FOLLOW_UP, 0)
    assert asked == [("ada", FOLLOW_UP)]


async def _silence() -> AsyncIterator[rtc.AudioFrame]:
    yield rtc.AudioFrame(b"\0\0" * 240, 24_000, 1, 240)


# -- faults: the person is greeted, rightly, as without preparation ------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        {"texts": ["x"]},
        {"texts": {"follow_up": 7}},
        {"texts": "x", "prompt": 7},
        {"opening": "shout"},
        {"last_seen": "yesterday"},
        {"unknown": 1},
    ],
    ids=str,
)
async def test_a_cached_plan_that_is_broken_is_read_from_the_store(
    runtime: Runtime, redis_server: RedisServer, broken: dict[str, Any]
) -> None:
    await prepare(runtime)
    key = keys.greeting_instructions("ada")
    redis_server.cli("SET", key, json.dumps(json.loads(redis_server.cli("GET", key)) | broken))
    assert await greeted() == (FOLLOW_UP, 0)


@pytest.mark.parametrize("plan", [{"opening": "shout"}, {"opening": "follow_up", "x": 1}, {"last_seen": ""}], ids=str)
async def test_a_stored_plan_that_is_broken_is_made_anew(runtime: Runtime, plan: dict[str, Any]) -> None:
    await prepare(runtime)
    opening = (await runtime.store.context("ada")).opening
    assert opening is not None
    await runtime.store.save_opening("ada", replace(opening, plan=plan))
    await (await get_redis_cache()).delete(keys.greeting_instructions("ada"))
    assert await greeted() == (LIVE, 1)


async def test_a_store_that_is_away_is_covered_by_the_copy(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    await prepare(runtime)
    with use_caller(Caller("ada")):
        await wrap_up(Caller("ada"), "c1", [said(1)], preparation=_prepared_with(PROMPT))

    async def away(*_: object) -> None:
        raise StoreError("context", "timeout")

    for name in ("context", "latest_erasure", "forgotten", "claim_openings", "add_turn", "save_opening"):
        monkeypatch.setattr(runtime.store, name, away)
    assert await greeted() == (FOLLOW_UP, 0)
    await (await get_redis_cache()).delete(keys.greeting_instructions("ada"))
    assert await greeted() == (LIVE, 1)


async def test_without_redis_the_store_has_it(
    runtime: Runtime, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepare(runtime)
    monkeypatch.setenv("CACHE_DEADLINE_MS", "200")
    await use_redis_cache(own_redis.url)
    assert await greeted() == (FOLLOW_UP, 0)
    own_redis.kill()
    assert await greeted() == (FOLLOW_UP, 0)
    await runtime.store.save_profile("ada", "Name: Eve")
    assert await greeted() == (LIVE, 1)


async def test_a_model_that_fails_at_the_end_leaves_the_greeting_to_the_start(runtime: Runtime, model: Writer) -> None:
    model.fails = ValueError("no model")
    await prepare(runtime)
    assert (await runtime.store.context("ada")).opening is None
    model.fails = None
    assert await greeted() == (LIVE, 1)
    opening = await until(lambda: _opening(runtime))
    assert opening.plan["topic"] == "the chess tournament", "what was decided at the start is stored for the next one"


@pytest.mark.parametrize("text", ["Good morning, Ada!", "Chess at 5?", "", "x" * 500, "Wie war dein Tag?"])
async def test_a_text_that_may_not_be_kept_is_not_said(
    runtime: Runtime, model: Writer, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__name__ + ".FRESH", text)
    await prepare(runtime, hours_ago=73)
    opening = await _opening(runtime)
    assert opening is not None
    assert opening.texts == {}
    assert await greeted() == (LIVE, 1)


async def _opening(runtime: Runtime) -> Opening | None:
    return (await runtime.store.context("ada")).opening


# -- prepared at the end -------------------------------------------------------------------------------------------


def _prepared_with(prompt: GreetingPrompt | None) -> Preparation:
    preparation = Preparation(NoSpeech())
    preparation.prompt = prompt
    return preparation


async def test_the_end_prepares_what_the_greeting_of_this_conversation_was_written_with(
    runtime: Runtime, model: Writer
) -> None:
    async with session() as (speech, memory, _):
        assert await memory.greet(PROMPT.instructions) is not None
        await speech.run(user_input="I prepare a chess tournament")
        opening = await until(lambda: _opening(runtime))
        assert (opening.plan, opening.texts, opening.prompt) == ({}, None, PROMPT.hash), "noted at the first turn"
    opening = await _opening(runtime)
    assert opening is not None
    assert opening.texts == {"follow_up": FOLLOW_UP, "fresh_start": FRESH}
    assert opening.version == (await runtime.store.context("ada")).version
    cached = Plan.from_cache(await (await get_redis_cache()).get(keys.greeting_instructions("ada")))
    assert cached is not None
    assert asdict(cached) == opening.plan | {"texts": opening.texts, "prompt": PROMPT.hash}
    written = "\n".join(item.text_content or "" for item in model.asked[-1].messages())
    assert "They talked about chess." in written, "the summary of the conversation that has ended"


async def test_while_the_store_is_away_a_later_turn_notes_it(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    preparation, ada = _prepared_with(PROMPT), Caller("ada")

    async def away(*_: object) -> None:
        raise StoreError("save_opening", "timeout")

    async def noted() -> None:
        preparation.note(ada)
        await preparation._background.ended(5.0)  # private: nothing public waits for it but the end

    with monkeypatch.context() as patch:
        patch.setattr(runtime.store, "save_opening", away)
        await noted()
    for _ in range(2):
        await noted()
    opening = await _opening(runtime)
    assert opening is not None
    assert opening.prompt == PROMPT.hash


async def test_what_the_agent_does_not_receive_is_not_in_its_greeting(runtime: Runtime, model: Writer) -> None:
    await runtime.store.save_profile("ada", "Name: Ada")
    for received in (True, False):
        prompt = replace(PROMPT, profile=received)
        await prepare(runtime, prompt=prompt)
        assert ("Name: Ada" in str(model.asked[-1].messages())) == received
        assert PROMPT.hash == prompt.hash if received else PROMPT.hash != prompt.hash


async def test_a_program_that_greets_by_itself_costs_no_text(runtime: Runtime, model: Writer) -> None:
    await prepare(runtime, prompt=None)
    assert model.systems == [FOLLOW_UP_PROMPT]


async def test_what_a_killed_job_left_is_prepared_by_the_next_one(
    runtime: Runtime, model: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("companion.conversation.opening.preparation.IDLE_AFTER", 0.0)
    for user_id, days in (("ben", 0.1), ("cem", 31.0)):
        await runtime.store.add_turn(user_id, said(24 * days))
        left = Opening(0, {}, None, PROMPT.hash, datetime.now(UTC) - timedelta(minutes=6))
        await runtime.store.save_opening(user_id, left)
    async with session() as (_, memory, _):
        await memory.greet(PROMPT.instructions)
        await until(lambda: _is_written(runtime, "ben"))
    plan = Plan.of(await runtime.store.context("ben"))
    assert plan is not None
    assert plan.text(PROMPT.hash) == FOLLOW_UP
    plan = Plan.of(await runtime.store.context("cem"))
    assert plan is not None
    assert plan.texts == {}, "one who was last here too long ago is not prepared for"
    assert await runtime.store.claim_openings(PROMPT.hash, older_than=-60, limit=9) == []


async def _is_written(runtime: Runtime, user_id: str) -> bool:
    opening = (await runtime.store.context(user_id)).opening
    return opening is not None and bool(opening.texts)


async def test_an_end_that_is_cut_short_leaves_the_decision(runtime: Runtime, model: Writer) -> None:
    """As by kill -9 while the text is written: the next start needs no judgement, and another job writes the text."""
    await runtime.store.add_turn("ada", said(1))

    writes = asyncio.Event()

    async def hang(*_: object) -> None:
        writes.set()
        await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patch, use_caller(Caller("ada")):
        patch.setattr(next_opening, "write_texts", hang)
        ending = asyncio.create_task(next_opening.prepare_opening("ada", PROMPT, NoSpeech()))
        await writes.wait()
        ending.cancel()
        await asyncio.wait({ending})
    opening = await _opening(runtime)
    assert opening is not None
    assert opening.texts is None
    assert await greeted() == (LIVE, 1)
    assert model.systems == [FOLLOW_UP_PROMPT]
    assert await runtime.store.claim_openings(PROMPT.hash, older_than=-60, limit=9) == ["ada"]


async def test_a_start_does_not_join_what_another_one_read_before_a_change(
    runtime: Runtime, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change is made, and invalidated, by another process, while a start of the same person is loading."""
    await prepare(runtime)
    key = keys.greeting_instructions("ada")
    await (await get_redis_cache()).delete(key)
    gate, has_read, read = asyncio.Event(), asyncio.Event(), runtime.store.context

    async def slowly(user_id: str, turns: int = 12) -> Any:
        found = await read(user_id, turns)
        if not has_read.is_set():
            has_read.set()
            await gate.wait()
        return found

    monkeypatch.setattr(runtime.store, "context", slowly)
    with use_caller(Caller("ada")):
        first = asyncio.create_task(read_plan("ada"))
        await has_read.wait()
        other = SqliteStore(tmp_path / "store" / "companion.db")
        await other.save_profile("ada", "Name: Eve")
        await other.close()
        redis_server.cli("DEL", keys.lease(key), key)
        second = asyncio.create_task(read_plan("ada"))
        await asyncio.sleep(0)
        gate.set()
        assert (await first).text(PROMPT.hash) == FOLLOW_UP, "it began before the change"
        assert (await second).text(PROMPT.hash) == ""


# -- races and words -----------------------------------------------------------------------------------------------


def test_edits_race_starts(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of 10,000 by hand: see ``opening_race``."""
    for name, value in {
        "REDIS_URL": redis_server.url,
        "CACHE_DEADLINE_MS": "10000",
        "CACHE_CONNECT_WAIT_MS": "5000",
    }.items():
        monkeypatch.setenv(name, value)
    race = opening_race.run(tmp_path, edits=60)
    assert race.stale == []
    assert race.seen["prepared"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Welcome back, Ada! How is the chess?", True),
        ("Schön, dass du wieder hier bist, Ada!", False),  # "hier" is yesterday in French
        ("Last time you said you love it.", True),
        ("Good Morning, Ada!", False),
        ("How was your weekend?", False),
        ("We were just talking about it.", False),
        ("That is just great.", True),
        ("It has been a while!", False),
        ("How was the trip in May?", False),
        ("May I ask about it?", False),
        ("I may ask about it.", True),
        ("See you at 5", False),
        ("Half of it: ½", False),
        ("Guten Abend, Ada!", False),
        ("Bonsoir, Ada !", False),
        ("Aujourd’hui encore ?", False),
        ("¡Buenos días, Ada!", False),
        ("おはよう", False),
        ("", True),
    ],
)
def test_a_kept_text_says_nothing_of_time(text: str, kept: bool) -> None:
    assert may_be_kept(text, "en") == kept


def test_what_a_language_without_a_list_says_is_not_known() -> None:
    assert may_be_kept("Schön, dass du wieder hier bist, Ada!", "de-AT")
    assert not may_be_kept("Witaj, Ada!", "pl")
