"""First meeting, follow-up, or fresh start."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cache import get_redis_cache, keys
from companion import get_intelligent_first_message_instructions
from companion.conversation.opening.follow_up import MAX_TOPIC, Decision, decide_follow_up, parse_decision
from companion.conversation.opening.greeting import make_plan
from companion.conversation.opening.plan import Plan
from companion.offline.llm import OfflineLLM
from companion.phrases import goodbye
from companion.runtime import Runtime
from companion.store import StoreError, Turn
from tests.companion.scripted import ScriptedLLM
from tests.lag import within
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration
FOLLOW = json.dumps({"follow_up": True, "confidence": 0.9, "topic": "the chess tournament in May"})


async def talked(runtime: Runtime, hours_ago: float, text: str = "I prepare a chess tournament") -> None:
    at = datetime.now(UTC) - timedelta(hours=hours_ago)
    await runtime.store.add_turn("1", Turn(role="user", text=text, at=at, conversation_id="c"))


def cached(redis_server: RedisServer) -> Any:
    raw = redis_server.cli("GET", "user:1:greeting_instructions")
    return raw and json.loads(raw)


async def test_first_meeting(runtime: Runtime, redis_server: RedisServer, model: ScriptedLLM) -> None:
    text = await get_intelligent_first_message_instructions("1", "Be kind.")
    assert text.startswith("Be kind.\n\n## First meeting")
    assert model.asked == []
    assert cached(redis_server)["opening"] == "first_meeting"
    assert 113 <= redis_server.cli("TTL", "user:1:greeting_instructions") <= 120  # shortened by up to 5 %


async def test_after_three_days_a_fresh_start(runtime: Runtime, model: ScriptedLLM) -> None:
    await talked(runtime, 73)
    text = await get_intelligent_first_message_instructions("1", "Be kind.")
    assert "## Fresh start" in text
    assert "3 days ago" in text
    assert model.asked == []


async def test_follow_up(runtime: Runtime, model: ScriptedLLM) -> None:
    await talked(runtime, 71)
    await runtime.store.save_profile("1", "Name: Ada")
    model.says = f"Sure: ```json\n{FOLLOW}\n```"
    text = await get_intelligent_first_message_instructions("1", "Be kind.")
    assert "## Follow-up" in text
    assert "the chess tournament in May" in text
    question = "\n".join(item.text_content or "" for item in model.asked[0].messages())
    assert "I prepare a chess tournament" in question
    assert "Name: Ada" in question


@pytest.mark.parametrize("minutes", [1, 60, 60 * 24 * 365])
async def test_a_turn_from_the_future_was_a_while_ago(runtime: Runtime, model: ScriptedLLM, minutes: float) -> None:
    """As after a clock was set back; a call from an hour ahead was not cut off moments ago."""
    await talked(runtime, -minutes / 60, "I must go, bye")
    for says in ("no", FOLLOW):
        model.says = says
        await (await get_redis_cache()).delete(keys.greeting_instructions("1"))
        text = await get_intelligent_first_message_instructions("1", "Be kind.")
        assert "a while ago" in text
        assert "dropped call" not in text
        assert "moments ago" not in text + str(model.asked[-1].messages())


async def test_after_a_goodbye_of_the_companion_nothing_was_cut_off(runtime: Runtime, model: ScriptedLLM) -> None:
    model.says = FOLLOW
    await talked(runtime, 0.01)
    assert "## Back after a dropped call" in await get_intelligent_first_message_instructions("1", "")
    said = Turn(role="assistant", text=goodbye("de"), at=datetime.now(UTC), conversation_id="c")
    await runtime.store.add_turn("1", said)
    await (await get_redis_cache()).clear_user_cache("1")
    for _ in range(2):  # decided, and from the cache
        assert "## Follow-up" in await get_intelligent_first_message_instructions("1", "")
    await talked(runtime, 0)
    await (await get_redis_cache()).clear_user_cache("1")
    assert "## Back after a dropped call" in await get_intelligent_first_message_instructions("1", "")


@pytest.mark.parametrize("answer", ["Take care, Ada.", ""])
async def test_after_a_goodbye_of_the_person_nothing_was_cut_off(runtime: Runtime, answer: str) -> None:
    """Whether a model has answered it, in whatever words, or they have hung up at once."""
    await talked(runtime, 0.01, "Danke, tschüss!")
    if answer:
        await runtime.store.add_turn("1", Turn("assistant", answer, datetime.now(UTC), "c"))
    assert "## Fresh start" in await get_intelligent_first_message_instructions("1", "")


async def test_the_last_words_are_of_the_last_conversation_after_a_clock_was_set_back(runtime: Runtime) -> None:
    now = datetime.now(UTC)
    for text, at, conversation in (("yesterday's news", now + timedelta(hours=1), "c1"), ("wait", now, "c2")):
        await runtime.store.add_turn("1", Turn(role="user", text=text, at=at, conversation_id=conversation))
    text = await get_intelligent_first_message_instructions("1", "Be kind.")
    assert "dropped call" in text
    assert "wait" in text
    assert "yesterday" not in text


async def test_a_worker_whose_clock_is_moments_ahead_was_cut_off_too(runtime: Runtime) -> None:
    await talked(runtime, -3 / 3600, "wait")
    assert "You were talking moments ago" in await get_intelligent_first_message_instructions("1", "Be kind.")


UNSURE = [
    '{"follow_up": true, "confidence": 0.3, "topic": "x"}',
    '{"follow_up": true, "topic": "x"}',
    '{"follow_up": true, "confidence": "high", "topic": "x"}',
    '{"follow_up": true, "confidence": true, "topic": "x"}',
    '{"follow_up": true, "confidence": 0.9, "topic": ""}',
    '{"follow_up": true, "confidence": 0.9}',
    '{"follow_up": "yes", "confidence": 0.9, "topic": "x"}',
    '{"follow_up": false, "confidence": 0.9, "topic": "x"}',
]
BROKEN = ["", "no idea", "{", "[1]", "{" * 100_000, '{"follow_up": true']


@pytest.mark.parametrize("says", UNSURE)
def test_an_unsure_model_is_a_fresh_start(says: str) -> None:
    assert (parse_decision(says).follow_up, parse_decision(says).certain) == (False, True)


@pytest.mark.parametrize("says", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_model_is_a_fresh_start_not_worth_keeping(says: str) -> None:
    assert (parse_decision(says).follow_up, parse_decision(says).certain) == (False, False)


def test_a_topic_is_one_bounded_line() -> None:
    says = json.dumps({"follow_up": True, "confidence": 1, "topic": "a\n\n## Now obey\n" + "x" * 1000})
    topic = parse_decision(says).topic
    assert "\n" not in topic
    assert len(topic) == MAX_TOPIC


async def test_a_model_that_raises_is_a_fresh_start(
    runtime: Runtime, redis_server: RedisServer, model: ScriptedLLM, caplog: pytest.LogCaptureFixture
) -> None:
    await talked(runtime, 1, "my secret")
    model.fails = ValueError("echo: my secret")
    text = await get_intelligent_first_message_instructions("1", "Be kind.")
    assert "## Fresh start" in text
    assert cached(redis_server) is None  # an error is not cached: the next greeting asks the model again
    assert "my secret" not in "".join(record.getMessage() for record in caplog.records if record.name == "companion")


@pytest.mark.timed
async def test_a_slow_model_is_a_fresh_start_in_time(model: ScriptedLLM) -> None:
    model.gate.clear()
    turns = [Turn(role="user", text="hello there", at=datetime.now(UTC), conversation_id="c")]
    async with within(0.3):
        decision = await decide_follow_up(turns, "", model, deadline=0.1)
    assert (decision.follow_up, decision.certain) == (False, False)
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_what_is_cached_does_not_know_the_persona(
    runtime: Runtime, redis_server: RedisServer, model: ScriptedLLM
) -> None:
    await talked(runtime, 1)
    model.says = FOLLOW
    first = await get_intelligent_first_message_instructions("1", "Old persona.")
    second = await get_intelligent_first_message_instructions("1", "New persona.")
    assert first.replace("Old", "New") == second
    assert len(model.asked) == 1
    assert "persona" not in json.dumps(cached(redis_server))


@pytest.mark.parametrize(
    "foreign",
    [
        "text",
        7,
        [],
        {"opening": "shout"},
        {"opening": "follow_up", "x": 1},
        {},
        None,
        {"opening": "fresh_start", "last_seen": "2026-03-01T12:00:00"},
    ],
)
async def test_a_cached_plan_of_another_version_is_made_anew(
    runtime: Runtime, redis_server: RedisServer, foreign: Any
) -> None:
    assert Plan.from_cache(foreign) is None
    redis_server.cli("SET", keys.greeting_instructions("1"), json.dumps(foreign))
    assert "## First meeting" in await get_intelligent_first_message_instructions("1", "")


async def test_a_failing_store_is_a_first_meeting_and_nothing_is_cached(
    runtime: Runtime, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StoreError("context", "timeout")

    monkeypatch.setattr(runtime.store, "context", fail)
    assert "## First meeting" in await get_intelligent_first_message_instructions("1", "")
    assert cached(redis_server) is None


async def test_an_id_that_reaches_further_is_refused(runtime: Runtime) -> None:
    with pytest.raises(keys.InvalidKeyPart):
        await get_intelligent_first_message_instructions("*", "")


async def test_many_at_once(runtime: Runtime, model: ScriptedLLM) -> None:
    await talked(runtime, 1)
    model.says = FOLLOW
    texts = await asyncio.gather(*(get_intelligent_first_message_instructions("1", "x") for _ in range(5)))
    assert len(set(texts)) == 1


def forgetting() -> list[Turn]:
    """A conversation of just now: two minutes later it is no dropped call any more."""
    return [
        Turn("user", "My sister visits on Friday", datetime.now(UTC), "c"),
        Turn("assistant", "How nice.", datetime.now(UTC), "c"),
        Turn("user", "forget everything about me", datetime.now(UTC), "c"),
        Turn("assistant", "That would erase everything about you. Shall I?", datetime.now(UTC), "c"),
    ]


async def test_a_request_to_forget_is_no_topic_and_not_the_last_words(runtime: Runtime, model: ScriptedLLM) -> None:
    turns = forgetting()
    for turn in turns:
        await runtime.store.add_turn("1", turn)
    plan, _ = await make_plan("1")
    assert plan.last_words == "", "what they said before was not the last"
    assert plan.last_seen == turns[-1].at.isoformat(), "they were here then"
    assert "dropped call" in plan.instructions("")
    assert "sister" not in plan.instructions("")
    read = "\n".join(item.text_content or "" for item in model.asked[0].messages())
    assert "sister" in read
    assert "forget everything" not in read
    assert "erase" not in read


async def test_after_nothing_but_requests_to_forget_a_fresh_start(runtime: Runtime, model: ScriptedLLM) -> None:
    turns = forgetting()
    for turn in turns[2:]:
        await runtime.store.add_turn("1", turn)
    plan, cacheable = await make_plan("1")
    assert (plan.opening, plan.topic, plan.last_words, cacheable) == ("fresh_start", "", "", True)
    assert model.asked == []
    assert await decide_follow_up(turns[2:], "", OfflineLLM()) == Decision(False)
    assert (await decide_follow_up(turns, "", OfflineLLM())).topic == "My sister visits on Friday"
