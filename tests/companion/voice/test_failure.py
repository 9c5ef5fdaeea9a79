"""A model that fails is apologised for once, and the job ends; no conversation ends in silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from livekit.agents import AgentSession, APIConnectionError, APIStatusError, stt
from livekit.agents.types import APIConnectOptions
from livekit.agents.voice.agent_session import SessionConnectOptions
from livekit.plugins import openai

from companion.prompts import GREETING
from companion.voice import failure, silence
from companion.voice.agent import CompanionAgent
from companion.voice.failure import FailureHandler, apology
from companion.voice.silence import spoken_within_deadline
from tests.companion.speech.toy_voice import Speaker, ToyVoice
from tests.real.models.openai_server import OpenAIServer, Reply, Script
from tests.wait import until

pytestmark = pytest.mark.integration
SORRY = apology("en")


class Call:
    """A text session with a model over HTTP, and the reasons for which its job was ended."""

    def __init__(self, session: AgentSession[Any]) -> None:
        self.session = session
        self.ended: list[str] = []

    @property
    def said(self) -> list[str]:
        return [str(each.text_content) for each in self.session.history.messages() if each.role == "assistant"]


@asynccontextmanager
async def call(script: Script, *, language: str = "en", patience: float = 0.2) -> AsyncIterator[Call]:
    """``patience``: seconds between the framework's retries."""
    async with OpenAIServer(script) as server:
        model = openai.LLM(model="any", api_key="test", base_url=server.base_url)
        options = SessionConnectOptions(llm_conn_options=APIConnectOptions(retry_interval=patience))
        session: AgentSession[Any] = AgentSession(
            llm=model, vad=None, turn_handling={"turn_detection": None}, conn_options=options
        )
        call = Call(session)
        async with session:
            agent = CompanionAgent(failure=FailureHandler(session, language, call.ended.append))
            await session.start(agent)
            session.generate_reply(instructions=GREETING, tool_choice="none")
            yield call
        await model.aclose()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
async def test_a_model_that_fails_for_good(status: int, caplog: pytest.LogCaptureFixture) -> None:
    async with call(lambda _: Reply.error(status)) as talk:
        await until(lambda: talk.ended)
        assert talk.said == [SORRY]
        with suppress(Exception):
            await talk.session.run(user_input="Hello? my secret")
        assert talk.said == [SORRY]
        assert talk.ended == ["a model failed"]
    assert f"status {status}" in caplog.text
    assert "my secret" not in caplog.text


@pytest.mark.parametrize("reply", [Reply.cut("It is"), Reply.malformed("It is")], ids=["cut", "malformed"])
async def test_one_that_breaks_off(reply: Reply) -> None:
    async with call(lambda body: reply if "Hello?" in str(body) else "Hi.") as talk:
        await until(lambda: talk.said)
        run = talk.session.run(user_input="Hello?")
        await until(lambda: talk.ended)
        with suppress(Exception):
            await run
        assert (talk.said[0], talk.said[-1]) == ("Hi.", SORRY)
        assert talk.said.count(SORRY) == 1


async def test_one_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "ANSWER_DEADLINE", 0.5)
    before = time.monotonic()
    async with call(lambda _: Reply.silent()) as talk:
        await until(lambda: talk.ended)
        assert talk.said == [SORRY]
    assert time.monotonic() - before < 12  # of the 15 that are usual


async def test_one_that_recovers_within_the_retries_is_not_apologised_for() -> None:
    replies = [Reply.error(503), Reply.error(429), Reply.say("Hi.")]
    async with call(lambda _: replies.pop(0)) as talk:
        await until(lambda: talk.said)
        assert talk.said == ["Hi."]
        assert talk.ended == []


async def test_the_person_who_waits_gets_the_apology_as_the_answer() -> None:
    async with call(lambda body: Reply.error(401) if "Hello?" in str(body) else "Hi.", language="de-AT") as talk:
        await until(lambda: talk.said)
        events = (await talk.session.run(user_input="Hello?")).events
        assert events[-1].item.text_content == apology("de")
        await until(lambda: talk.ended)


@pytest.mark.parametrize(("recoverable", "ended"), [(True, []), (False, ["a model failed"])])
async def test_one_that_hears_nothing(recoverable: bool, ended: list[str]) -> None:
    async with call(lambda _: "Hi.") as talk:
        await until(lambda: talk.said)
        problem = stt.STTError(timestamp=0.0, label="", error=APIConnectionError(), recoverable=recoverable)
        talk.session.emit("error", failure.ErrorEvent(error=problem, source=None))
        if ended:
            await until(lambda: talk.ended)
        assert talk.ended == ended
        assert talk.said == ["Hi.", SORRY] if ended else ["Hi."]


async def test_a_session_that_is_not_running_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure, "_START_TIMEOUT", 0.1)  # private: no test waits for seconds
    ended: list[str] = []
    FailureHandler(AgentSession(vad=None), "en", ended.append).failed("model", APIStatusError("x", status_code=401))
    await until(lambda: ended)


async def test_a_voice_without_a_sound_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "ANSWER_DEADLINE", 0.3)

    async def text() -> AsyncIterator[str]:
        for piece in ["Hello", "you", "there"]:
            yield piece
            await asyncio.sleep(0.2)  # a slow model is not the voice's fault

    async def at_the_end(pieces: Any) -> AsyncIterator[str]:
        yield " ".join([piece async for piece in pieces])
        await asyncio.sleep(0.5)  # a pause between two sounds is none either
        yield "."

    async def never(pieces: Any) -> AsyncIterator[str]:
        yield " ".join([piece async for piece in pieces if await asyncio.Event().wait()])

    assert [sound async for sound in spoken_within_deadline(text(), at_the_end)] == ["Hello you there", "."]
    with pytest.raises(TimeoutError):
        [sound async for sound in spoken_within_deadline(text(), never)]


@pytest.mark.parametrize("before", [[], ["Hello there. ", "How are "]], ids=["at once", "in the middle"])
async def test_a_text_transform_that_raises_fails_as_a_voice_does(before: list[str]) -> None:
    """LiveKit's own node waits for the rest of the text, and no reply after it is heard."""
    ended: list[str] = []

    def broken(text: AsyncIterable[str]) -> AsyncIterable[str]:
        async def pieces() -> AsyncIterator[str]:
            for piece in before:
                yield piece
            raise ValueError("the transform is broken")

        return pieces()

    session: AgentSession[Any] = AgentSession(
        tts=ToyVoice(), vad=None, turn_handling={"turn_detection": None}, tts_text_transforms=[broken]
    )
    speaker = session.output.audio = Speaker()
    async with session:
        await session.start(CompanionAgent(failure=FailureHandler(session, "en", ended.append)))
        session.say("Hello there. How are you?")
        await until(lambda: ended)
        assert [str(item.text_content) for item in session.history.messages()][-1] == SORRY
    assert bool(speaker.frames) is bool(before)  # what came is spoken
