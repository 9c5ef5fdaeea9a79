"""Every turn is stored, in order, in the background."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from livekit.agents import ConversationItemAddedEvent, llm

from cache import get_redis_cache, keys
from companion import Caller
from companion.conversation.turn_log import TurnLog
from companion.offline.replies import NO_SECRETS
from companion.runtime import Runtime
from companion.store import StoreError, Turn

pytestmark = pytest.mark.integration


def said(role: Any, text: str) -> ConversationItemAddedEvent:
    return ConversationItemAddedEvent(item=llm.ChatMessage(role=role, content=[text]))


async def test_turns_are_stored_in_order(runtime: Runtime) -> None:
    log = TurnLog(Caller("1"), runtime.write_behind)
    for event in (said("assistant", "Hello"), said("user", "Hi"), said("system", "no"), said("user", "  ")):
        log.on_item(event)
    assert await log.close() == 0
    stored = await runtime.store.recent_turns("1")
    assert [(turn.role, turn.text) for turn in stored] == [("assistant", "Hello"), ("user", "Hi")]
    assert {turn.conversation_id for turn in stored} == {log.conversation_id}


async def test_a_clock_that_is_set_back_does_not_change_the_order(runtime: Runtime) -> None:
    log = TurnLog(Caller("1"), runtime.write_behind)
    words = ["Hi", "Hello", "I like chess", "So do I"]
    for number, text in enumerate(words):
        event = said("assistant" if number % 2 else "user", text)
        event.item.created_at -= 3600 * (number // 2)
        log.on_item(event)
    assert await log.close() == 0
    assert [turn.text for turn in await runtime.store.recent_turns("1")] == words


@pytest.mark.parametrize("answer", [NO_SECRETS, f"{NO_SECRETS} Nice to meet you.", NO_SECRETS[:12]])
async def test_a_refused_secret_is_not_brought_up_however_much_of_the_answer_was_heard(
    runtime: Runtime, answer: str
) -> None:
    log = TurnLog(Caller("1"), runtime.write_behind)
    for event in (said("user", "I like chess"), said("user", "my pin is 1234"), said("assistant", answer)):
        log.on_item(event)
    assert await log.close() == 0
    assert [turn.skipped for turn in await runtime.store.recent_turns("1")] == [False, True, True]


async def test_a_turn_changes_the_next_greeting(runtime: Runtime) -> None:
    cache = await get_redis_cache()
    await cache.set(keys.greeting_instructions("1"), {"opening": "first_meeting"})
    log = TurnLog(Caller("1"), runtime.write_behind)
    log.on_item(said("user", "I like chess"))
    await log.close()
    assert await cache.exists(keys.greeting_instructions("1")) == 0


@pytest.mark.serial
async def test_storing_delays_nothing_and_survives_an_outage(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add, calls = runtime.store.add_turn, 0

    async def flaky(user_id: str, turn: Turn) -> None:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise StoreError("add_turn", "timeout")
        await add(user_id, turn)

    monkeypatch.setattr(runtime.store, "add_turn", flaky)
    log = TurnLog(Caller("1"), runtime.write_behind)
    start = time.perf_counter()
    for n in range(10):
        log.add(Turn(role="user", text=f"my secret {n}", at=datetime.now(UTC), conversation_id="c"))
    assert time.perf_counter() - start < 0.05
    assert await log.close() == 0
    assert [turn.text for turn in await runtime.store.recent_turns("1")] == [f"my secret {n}" for n in range(10)]
    assert caplog.text.count("a turn waits for the store") == 1
    assert "my secret" not in caplog.text


async def test_a_store_that_hangs_does_not_hold_the_end(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(runtime.store, "add_turn", hang)
    log = TurnLog(Caller("1"), runtime.write_behind)
    log.on_item(said("user", "hello"))
    assert await log.close(timeout=0.1) == 1
    assert "not stored: 1. They wait in COMPANION_HOME for the next start" in caplog.text


async def test_an_unknown_callers_turns_are_not_stored(runtime: Runtime) -> None:
    log = TurnLog(None, runtime.write_behind)
    log.on_item(said("user", "hello"))
    assert await log.close() == 0
