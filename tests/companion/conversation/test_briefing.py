"""The briefing is complete within a second of its start, the model's judgement on a follow-up aside."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from companion import Caller
from companion.conversation.briefing import Prefetch
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


@pytest.mark.serial
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
