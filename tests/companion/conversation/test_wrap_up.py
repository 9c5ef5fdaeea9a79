"""The wrap-up of a conversation: summary, conversation count, and the next greeting."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cache import get_redis_cache
from companion import Caller, get_intelligent_first_message_instructions, use_caller
from companion.conversation import wrap_up as wrap_up_module
from companion.conversation.briefing import Prefetch
from companion.conversation.opening.plan import Plan
from companion.conversation.turn_log import TurnLog
from companion.conversation.wrap_up import wrap_up
from companion.memory.context import get_conversation_summary_async, get_user_state_async
from companion.offline.replies import greeting
from companion.runtime import Runtime
from companion.store import StoreError, Turn
from companion.writes.relationship import ConversationEnded, count_conversation
from tests.companion.scripted import ScriptedLLM
from tests.lag import within
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration


def turn(role: Any, text: str, minutes_ago: float = 0) -> Turn:
    at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    return Turn(role=role, text=text, at=at, conversation_id="c1")


async def test_the_next_greeting_is_ready(runtime: Runtime, redis_server: RedisServer, model: ScriptedLLM) -> None:
    said = [turn("assistant", "Hello"), turn("user", "I prepare a chess tournament")]
    for one in said:
        await runtime.store.add_turn("1", one)
    model.says = json.dumps({"follow_up": True, "confidence": 0.9, "topic": "the chess tournament"})
    await wrap_up(Caller("1"), "c1", said)
    assert json.loads(redis_server.cli("GET", "user:1:greeting_instructions"))["topic"] == "the chess tournament"
    asked = len(model.asked)
    text = await get_intelligent_first_message_instructions("1", "Be kind.")
    assert len(model.asked) == asked  # no model call is awaited
    assert "dropped call" in text
    assert "I prepare a chess tournament" in text
    with use_caller(Caller("1")):
        assert await get_conversation_summary_async() == model.says  # the answer of this model to every request
        state = await get_user_state_async()
        assert (state["conversations"], state["stage"]) == (1, "new")


async def test_preparing_the_next_start_is_no_lookup(runtime: Runtime, model: ScriptedLLM) -> None:
    model.says = json.dumps({"follow_up": True, "confidence": 0.9, "topic": "the chess tournament"})
    await runtime.store.save_profile("1", "Name: Ada")
    await runtime.store.add_turn("1", turn("user", "I prepare a chess tournament"))
    await wrap_up(Caller("1"), "c1", [turn("user", "I prepare a chess tournament")])
    cache = await get_redis_cache()
    stats = await cache.get_stats()
    assert (stats["total_requests"], stats["warmed"]) == (0, 4)  # greeting, profile, summary, state
    await Prefetch(Caller("1")).result()
    stats = await cache.get_stats()
    assert (stats["total_requests"], stats["cache_hits"], stats["warmed"]) == (4, 4, 4)


async def test_a_cancelled_wrap_up_leaves_nothing_running(runtime: Runtime, model: ScriptedLLM) -> None:
    """The end of the job cancels it, and closes the runtime: what went on would open another one."""
    model.gate.clear()
    wrapping_up = asyncio.create_task(wrap_up(Caller("1"), "c1", [turn("user", "I like tea")]))
    await until(lambda: model.asked)
    wrapping_up.cancel()
    await asyncio.wait({wrapping_up})
    await until(lambda: "wrap-up" not in {task.get_name() for task in asyncio.all_tasks()})


@pytest.mark.parametrize(("minutes", "heading"), [(1, "## Back after a dropped call"), (3, "## Follow-up")])
def test_back_within_two_minutes_is_a_dropped_call(minutes: float, heading: str) -> None:
    at = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
    assert heading in Plan("follow_up", at, "chess", "I play chess").instructions("Be kind.")


def test_after_a_goodbye_nothing_was_cut_off() -> None:
    at = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    for said, cut_off in (("I play chess", True), ("Goodbye then", False), ("see you!", False)):
        how = Plan("follow_up", at, "chess", said).instructions("Be kind.")
        assert ("cut off" in greeting(how, "Name: Ada")) == cut_off


async def test_stages(runtime: Runtime) -> None:
    stages = []
    for number in range(10):
        for _ in range(2):  # counted once, however often it is retried
            await wrap_up(Caller("1"), f"c{number}", [turn("user", "hello")])
        with use_caller(Caller("1")):
            stages.append((await get_user_state_async())["stage"])
    assert stages == ["new"] * 2 + ["acquainted"] * 7 + ["familiar"]


async def test_a_conversation_that_ended_is_counted_once(runtime: Runtime) -> None:
    for conversation in ("c1", "c2", "c1", "c3", "c2"):
        await wrap_up(Caller("1"), conversation, [turn("user", "hello")])
    state = await runtime.store.get_state("1")
    assert state is not None
    assert state["conversations"] == 3
    assert (
        count_conversation({"conversations": 5, "last_counted": "c5"}, ConversationEnded("c5", datetime.now(UTC)))[
            "conversations"
        ]
        == 5
    )


async def test_a_state_that_cannot_be_read_is_not_replaced(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    await runtime.store.save_state("1", {"conversations": 41, "stage": "familiar", "plan": "gold"})

    async def fail(*_: object) -> None:
        raise StoreError("get_state", "timeout")

    with monkeypatch.context() as patch:
        for method in ("context", "get_state"):
            patch.setattr(runtime.store, method, fail)
        await wrap_up(Caller("1"), "c1", [turn("user", "hello")])

    async def is_counted() -> bool:
        state = await runtime.store.get_state("1")
        return state == {"conversations": 42, "stage": "familiar", "plan": "gold", "last_counted": ["c1"]}

    await until(is_counted)


async def test_a_conversation_without_a_word_changes_nothing(runtime: Runtime, redis_server: RedisServer) -> None:
    await wrap_up(Caller("1"), "c1", [turn("assistant", "Hello")])
    await wrap_up(None, "c1", [turn("user", "Hello")])
    assert redis_server.cli("KEYS", "user:*") == []
    assert await runtime.store.get_state("1") is None


async def test_a_model_that_hangs_does_not_hold_the_end(runtime: Runtime, model: ScriptedLLM) -> None:
    model.gate.clear()
    async with within(1.0):
        await wrap_up(Caller("1"), "c1", [turn("user", "hello")], timeout=0.2)


async def test_a_model_that_fails_leaves_no_summary(
    runtime: Runtime, model: ScriptedLLM, caplog: pytest.LogCaptureFixture
) -> None:
    model.fails = ValueError("echo: my secret")
    await runtime.store.add_turn("1", turn("user", "my secret"))
    await wrap_up(Caller("1"), "c1", [turn("user", "my secret")])
    assert await runtime.store.latest_summary("1") is None
    ours = [record.getMessage() for record in caplog.records if record.name in ("companion", "cache")]
    assert "my secret" not in "".join(ours)


async def test_a_goodbye_fits_into_what_the_framework_gives(
    runtime: Runtime, model: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a slow store and a model that hangs."""
    monkeypatch.setattr(wrap_up_module, "TIMEOUT", 1.6)
    add = runtime.store.add_turn

    async def slowly(user_id: str, turn: Turn) -> None:
        await asyncio.sleep(0.3)
        await add(user_id, turn)

    monkeypatch.setattr(runtime.store, "add_turn", slowly)
    model.gate.clear()
    turns = TurnLog(Caller("1"), runtime.write_behind)
    turns.add(turn("user", "hello"))
    start = time.perf_counter()
    async with within(1.5):
        await wrap_up_module.end_conversation(turns)
    assert time.perf_counter() - start > 0.5
    assert len(await runtime.store.recent_turns("1")) == 1
