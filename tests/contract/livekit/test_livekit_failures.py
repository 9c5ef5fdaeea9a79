"""The behaviour of LiveKit's sessions when a model fails that the companion depends on. See docs/upgrading.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from livekit.agents import Agent, APIStatusError, CloseEvent, CloseReason, llm, stt

from tests.contract.livekit.livekit_stand_in import talking

pytestmark = pytest.mark.integration


class Broken(Agent):
    """An agent without an answer."""

    async def llm_node(self, *_: Any) -> AsyncIterator[str]:
        try:
            raise APIStatusError("no", status_code=401)
            yield ""
        except APIStatusError:
            self.session.say("I am sorry.", allow_interruptions=False)


async def test_what_is_said_in_a_node_that_fails_is_the_answer() -> None:
    """``companion.voice.failure``: ``say`` in a failing ``llm_node`` is spoken, and is in the result of the turn.

    Otherwise a text user would not see the apology.
    """
    async with talking(Broken(instructions="-")) as talk:
        result = await talk.say("Hello?")
        assert [event.item.text_content for event in result.events] == ["I am sorry."]
        handle = talk.session.say("Goodbye.", allow_interruptions=False)
        await handle.wait_for_playout()
        assert handle.done()


async def test_a_session_that_does_not_run_cannot_speak() -> None:
    """``companion.voice.failure``: ``say`` raises ``RuntimeError`` then, and the job is ended without an apology."""
    async with talking(Agent(instructions="-")) as talk:
        await talk.session.aclose()
        with pytest.raises(RuntimeError):
            talk.session.say("I am sorry.")


async def test_a_session_survives_three_errors_and_says_why_it_closes() -> None:
    """``companion.voice.failure``: the first error that is not recoverable is early enough for an apology.

    If the framework closed a session at once, the apology would be cut off.
    """
    async with talking(Agent(instructions="-")) as talk:
        closed: asyncio.Future[CloseEvent] = asyncio.get_running_loop().create_future()
        talk.session.on("close", closed.set_result)
        error = llm.LLMError(timestamp=0.0, label="", error=RuntimeError("no"), recoverable=False)
        for _ in range(3):
            talk.model.emit("error", error)
        await asyncio.sleep(0.05)
        assert not closed.done()
        talk.model.emit("error", error)
        event = await closed
        assert event.reason is CloseReason.ERROR


def test_an_error_of_the_transcription_says_whether_it_is_retried() -> None:
    """``companion.voice.failure``: ``recoverable`` is false where the framework's retries are used up."""
    problem = APIStatusError("no", status_code=401)
    error = stt.STTError(timestamp=0.0, label="", error=problem, recoverable=False)
    assert (error.error, error.recoverable) == (problem, False)
