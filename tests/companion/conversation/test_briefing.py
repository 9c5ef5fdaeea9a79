"""The briefing is complete within a second of its start, the model's judgement on a follow-up aside."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from companion import Caller
from companion.conversation import briefing
from companion.conversation.briefing import Prefetch
from companion.conversation.knowledge import Knowledge
from companion.conversation.opening.plan import FIRST_MEETING
from companion.runtime import Runtime
from companion.store import StoreError, Turn
from tests.companion.scripted import ScriptedLLM
from tests.lag import LoopLag
from tests.wait import until

pytestmark = pytest.mark.integration
ADA = Caller("ada")
FOLLOW_UP = json.dumps({"follow_up": True, "confidence": 0.9, "topic": "the chess tournament"})


class Reader:
    """Talks with what it was given."""

    def __init__(self, profile: str) -> None:
        self.profile = profile

    async def set_profile(self, profile: str) -> None:
        self.profile = profile


@pytest.fixture
async def known(runtime: Runtime) -> Runtime:
    at = datetime.now(UTC) - timedelta(minutes=30)
    await runtime.store.add_turn("ada", Turn("user", "I prepare a chess tournament", at, "earlier"))
    await runtime.store.save_profile("ada", "Name: Ada")
    return runtime


async def test_the_judgement_may_take_longer_than_the_store(known: Runtime, model: ScriptedLLM) -> None:
    model.says = FOLLOW_UP
    model.gate.clear()
    asyncio.get_running_loop().call_later(1.5, model.gate.set)
    briefing = await Prefetch(ADA).result()
    assert "the chess tournament" in briefing.plan.instructions("")
    assert briefing.profile == "Name: Ada"


@pytest.mark.timed
async def test_a_silent_store_is_waited_for_a_second(known: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(known.store, "context", hang)
    before = time.monotonic()
    async with LoopLag() as lag:
        prefetch = Prefetch(ADA)
        assert (await prefetch.result()).profile == ""
    assert time.monotonic() - before < 1.25 + lag.seconds
    prefetch.cancel()


@pytest.mark.parametrize(
    ("learned", "then"), [("", "Name: Ada"), ("Lives in: Oslo", "Lives in: Oslo")], ids=["nothing", "something"]
)
async def test_a_profile_that_comes_late_is_in_the_next_answer(
    known: Runtime, monkeypatch: pytest.MonkeyPatch, learned: str, then: str
) -> None:
    read, gate = known.store.context, asyncio.Event()

    async def late(*given: Any) -> Any:
        await gate.wait()
        return await read(*given)

    monkeypatch.setattr(known.store, "context", late)
    prefetch = Prefetch(ADA)
    briefing = await prefetch.result()
    reader = Reader(briefing.profile)
    prefetch.deliver_late_profile(reader)
    await reader.set_profile(learned)
    gate.set()
    await until(lambda: reader.profile == then)
    await prefetch.wait()
    assert reader.profile == then


async def test_a_late_profile_that_cannot_be_read_changes_nothing(
    known: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    async def fail(*_: object) -> None:
        await gate.wait()
        raise StoreError("context", "timeout")

    monkeypatch.setattr(known.store, "context", fail)
    prefetch = Prefetch(ADA)
    reader = Reader((await prefetch.result()).profile)
    prefetch.deliver_late_profile(reader)
    gate.set()
    await until(lambda: "ada" in known.write_behind.unseen_profiles)
    assert reader.profile == ""


async def test_a_stalled_process_is_no_silent_store(known: Runtime) -> None:
    """As when many conversations start at once: the store has answered, and the loop has not seen it yet."""
    prefetch = Prefetch(ADA)
    for _ in range(4):
        await asyncio.sleep(0)
        time.sleep(0.4)  # noqa: ASYNC251 - the stall
    assert (await prefetch.result()).profile == "Name: Ada"


@pytest.mark.parametrize("complete", [True, False])
async def test_what_is_forgotten_after_it_was_read_stays_forgotten(
    known: Runtime, model: ScriptedLLM, monkeypatch: pytest.MonkeyPatch, complete: bool
) -> None:
    """The reading waits for the lease of another job meanwhile; also where a part of it could not be read."""

    async def fail() -> str:
        raise StoreError("no summary")

    async def wait_for_lease(_: Caller) -> None:
        await lease.wait()

    if not complete:
        monkeypatch.setattr(briefing, "get_conversation_summary_async", fail)
    model.says = FOLLOW_UP
    lease, record, hook = asyncio.Event(), Mock(earlier_turns=()), Mock(refresh=AsyncMock())
    record.open = wait_for_lease
    knowledge = Knowledge(record, hook, Mock(), None)
    knowledge.meet(ADA)
    prefetch = knowledge._prefetch  # private: nothing public waits for it
    assert prefetch is not None
    await prefetch.wait()
    await until(lambda: bool(knowledge.profile) is complete)
    await knowledge.forget("", [["chess"]])
    lease.set()
    assert knowledge.briefing is not None
    await knowledge.briefing
    assert (knowledge.profile, knowledge.plan.topic, knowledge.plan.last_words, knowledge.words) == ("", "", "", "")


async def test_nothing_that_was_to_be_picked_up_outlasts_a_forgetting(known: Runtime, model: ScriptedLLM) -> None:
    model.says = FOLLOW_UP
    knowledge = Knowledge(Mock(earlier_turns=(), open=AsyncMock()), Mock(refresh=AsyncMock(), agents=[]), Mock(), None)
    knowledge.meet(ADA)
    assert knowledge.briefing is not None
    await knowledge.briefing
    assert (knowledge.plan.opening, knowledge.plan.topic) == ("follow_up", "the chess tournament")
    await knowledge.forget("Name: Ada", [["chess"]])
    assert (knowledge.plan.opening, knowledge.plan.topic, knowledge.words) == ("fresh_start", "", "Name: Ada")
    await knowledge.forget_everything()
    assert (knowledge.plan, knowledge.words) == (FIRST_MEETING, "")
