"""The summary of a conversation is one of all of it, however long it was."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from livekit.agents import APIConnectOptions, llm

from companion.conversation import summary
from companion.conversation.summary import MAX_SUMMARY, summarise
from companion.offline.llm import OfflineLLM
from companion.prompts import COMBINED_SUMMARY_PROMPT
from companion.store import Turn
from tests.tools.conversation import PlayedLLM

pytestmark = pytest.mark.unit


class Writer(PlayedLLM):
    """Writes notes as ``write`` makes them of a request's material; ``write`` may raise, or return None to hang."""

    def __init__(self, write: Callable[[str, str], str | None]) -> None:
        super().__init__()
        self.write = write
        self.asked: list[str] = []

    def chat(self, *, chat_ctx: llm.ChatContext, **given: Any) -> llm.LLMStream:
        return super().chat(chat_ctx=chat_ctx, **given | {"conn_options": APIConnectOptions(max_retry=0)})


class _Stream(llm.LLMStream):
    _llm: Writer

    async def _run(self) -> None:
        prompt, material = (str(item.text_content) for item in self._chat_ctx.messages())
        self._llm.asked.append(material)
        said = self._llm.write(prompt, material)
        if said is None:
            await asyncio.Event().wait()
        delta = llm.ChoiceDelta(role="assistant", content=said)
        self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=delta))


Writer.stream = _Stream


def numbers(prompt: str, material: str) -> str:
    """The least and the greatest number in the material."""
    found = [int(number) for number in re.findall(r"\bnumber (\d+)", material)]
    return f"From number {min(found)} to number {max(found)}."


def talk(count: int, length: int = 300) -> list[Turn]:
    at = datetime.now(UTC)
    return [
        Turn("assistant" if number % 2 else "user", f"number {number} {'x' * length}", at, "c")
        for number in range(count)
    ]


async def test_a_short_conversation_is_one_request() -> None:
    model = Writer(numbers)
    assert await summarise(talk(41), model) == "From number 0 to number 40."
    assert len(model.asked) == 1


async def test_a_long_one_is_summarised_from_its_first_turn_to_its_last() -> None:
    model = Writer(numbers)
    assert await summarise(talk(400), model) == "From number 0 to number 399."
    asked = "\n".join(model.asked)
    assert all(f"number {number} " in asked for number in range(400))
    assert max(map(len, model.asked)) < summary.PART + summary.MAX_TURN + 100


async def test_even_the_longest_has_few_parts() -> None:
    model = Writer(numbers)
    assert await summarise(talk(3000, length=1_000), model) == "From number 0 to number 2999."
    assert len(model.asked) <= summary.MAX_PARTS + 2


async def test_a_part_that_fails_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def fail(prompt: str, material: str) -> str:
        if "number 0 " in material:
            raise RuntimeError("my secret")
        return numbers(prompt, material)

    assert re.fullmatch(r"From number [1-9]\d* to number 399\.", await summarise(talk(400), Writer(fail)))
    assert "1 of 6 parts of a conversation are not in its summary" in caplog.text
    assert "my secret" not in "".join(record.getMessage() for record in caplog.records if record.name == "companion")


async def test_if_all_fail_it_raises() -> None:
    def fail(prompt: str, material: str) -> str:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await summarise(talk(400), Writer(fail))


@pytest.mark.parametrize("combined", [None, ""], ids=["silent", "empty"])
async def test_without_a_combined_note_the_notes_are_the_summary(
    monkeypatch: pytest.MonkeyPatch, combined: str | None
) -> None:
    monkeypatch.setattr(summary, "COMBINE_TIMEOUT", 0.2)

    def write(prompt: str, material: str) -> str | None:
        return combined if prompt == COMBINED_SUMMARY_PROMPT else numbers(prompt, material)

    found = await summarise(talk(400), Writer(write))
    assert found.startswith("From number 0 to ")
    assert found.endswith("to number 399.")
    assert len(found) <= MAX_SUMMARY


async def test_a_silent_model_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "PARTS_TIMEOUT", 1.0)

    def write(prompt: str, material: str) -> str | None:
        return None if "number 399 " in material else numbers(prompt, material)

    assert re.fullmatch(r"From number 0 to number 3\d\d\.", await summarise(talk(400), Writer(write)))


async def test_the_offline_voice_summarises_a_long_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "PARTS_TIMEOUT", 30.0)  # half a second, and more on a busy machine
    turns = [Turn("user", f"I say number {number} {'x' * 300}", datetime.now(UTC), "c") for number in range(200)]
    found = await summarise(turns, OfflineLLM())
    assert "number 19" in found


async def test_a_request_to_forget_is_not_in_it() -> None:
    said = ["My sister visits on Friday", "please forget that I like chess", "delete my data"]
    turns = [Turn(role, words, datetime.now(UTC), "c") for words in said for role in ("user", "assistant")]
    assert await summarise(turns, OfflineLLM()) == "They said: “My sister visits on Friday”."
    model = Writer(lambda prompt, material: material)
    await summarise(turns, model)
    assert "chess" not in model.asked[0]
    assert await summarise(turns[2:], model) == ""
    assert len(model.asked) == 1
