"""What is heard first was spoken before: for the person at hang-up, or once for all. No model and no voice is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from livekit.agents import Agent, AgentSession

from cache import get_redis_cache, keys
from companion import Caller, attach
from companion.phrases import dropped_call, first_meeting, phrases
from companion.prompts import GREETING
from companion.runtime import Runtime, acquire_runtime
from companion.speech import VoiceSpeech, recordings
from companion.speech.recordings import PhraseMemory
from companion.store import SqliteStore, Turn
from companion.voice.agent import CompanionAgent
from tests.companion.conversation.test_opening import FOLLOW_UP, FRESH, LIVE, Writer
from tests.companion.scripted import ScriptedLLM
from tests.companion.speech.toy_voice import Speaker, ToyVoice
from tests.contract.livekit.livekit_stand_in import PlayedLLM
from tests.real.redis.redis_server import RedisServer

pytestmark = pytest.mark.integration


@dataclass
class Heard:
    """The first words of one conversation.

    Attributes:
        text: in the history.
        seconds: of sound.
        models, voices: what was asked for them.
    """

    text: str
    seconds: float
    models: int
    voices: list[str]


@pytest.fixture
def model() -> ScriptedLLM:
    return Writer()


@pytest.fixture
def voice(monkeypatch: pytest.MonkeyPatch) -> ToyVoice:
    """A voice that has a name of its own, as the companion's have."""
    monkeypatch.setattr("companion.speech.session_speech.voice_key", lambda voice: voice.model)
    monkeypatch.setattr(recordings, "memory", PhraseMemory())  # as in a new process
    return ToyVoice()


@asynccontextmanager
async def conversation(voice: ToyVoice, agent: Agent | None = None) -> AsyncIterator[tuple[Any, Any, Any, Speaker]]:
    talking = PlayedLLM(lambda _: LIVE)
    session: AgentSession[Any] = AgentSession(llm=talking, tts=voice, vad=None, turn_handling={"turn_detection": None})
    speaker = session.output.audio = Speaker()
    acquire_runtime()  # the test's, which it closes itself
    memory = await attach(session, caller=Caller("ada"))
    async with session:
        await session.start(agent or CompanionAgent())
        yield session, memory, talking, speaker
    await memory.aclose()


async def first_words(voice: ToyVoice, agent: Agent | None = None, greeting: str = GREETING, says: str = "") -> Heard:
    """What Ada hears first. Then she may say something, before she hangs up."""
    before = len(voice.spoken)
    async with conversation(voice, agent) as (session, memory, talking, speaker):
        handle = await memory.greet(greeting)
        assert handle is not None
        await handle
        heard = Heard(
            (session.history.messages()[-1].text_content or "").strip(),
            sum(frame.duration for frame in speaker.frames),
            len(talking.asked),
            voice.spoken[before:],
        )
        if says:
            await session.run(user_input=says)
    return heard


async def let_pass(runtime: Runtime, redis: RedisServer, **time: float) -> None:
    """Let time pass for the opening and its copy."""
    assert isinstance(runtime.store, SqliteStore)
    opening = (await runtime.store.context("ada")).opening
    assert opening is not None
    last_seen = (datetime.now(UTC) - timedelta(**time)).isoformat()
    opening.plan["last_seen"] = last_seen
    await runtime.store.save_opening("ada", opening)
    redis.cli("DEL", keys.greeting_instructions("ada"))


@pytest.mark.parametrize(("time", "text"), [({"minutes": 30}, FOLLOW_UP), ({"days": 6}, FRESH)])
async def test_who_comes_back_hears_what_was_spoken_at_hang_up(
    runtime: Runtime, redis_server: RedisServer, model: Writer, voice: ToyVoice, time: dict[str, float], text: str
) -> None:
    await get_redis_cache()
    await first_words(voice, says="I prepare a chess tournament")
    assert {FOLLOW_UP, FRESH} <= set(voice.spoken)  # and a variant for a long absence
    await let_pass(runtime, redis_server, **time)
    asked = len(model.asked)
    heard = await first_words(voice)
    assert (heard.text, heard.models, heard.voices) == (text, 0, [])
    assert heard.seconds > 0.3
    assert len(model.asked) == asked


async def test_without_its_speech_the_text_is_spoken_live(
    runtime: Runtime, redis_server: RedisServer, voice: ToyVoice
) -> None:
    await get_redis_cache()
    await first_words(voice, says="I prepare a chess tournament")
    await let_pass(runtime, redis_server, minutes=30)
    redis_server.cli("DEL", *redis_server.cli("KEYS", "user:ada:speech:*"))
    heard = await first_words(voice)
    assert (heard.text, heard.models, " ".join(heard.voices)) == (FOLLOW_UP, 0, FOLLOW_UP)


async def test_first_meetings_and_dropped_calls_are_spoken_once_for_all(runtime: Runtime, voice: ToyVoice) -> None:
    await get_redis_cache()
    for phrase in phrases("en"):
        await VoiceSpeech(voice).prepare(None, phrase)
    assert voice.spoken == phrases("en")
    heard = await first_words(voice)
    assert (heard.text, heard.models, heard.voices) == (first_meeting("en"), 0, [])
    assert heard.seconds > 1
    await runtime.store.add_turn("ada", Turn("user", "I was just", datetime.now(UTC), "c1"))
    await (await get_redis_cache()).delete(keys.greeting_instructions("ada"))
    heard = await first_words(voice)
    assert (heard.text, heard.models, heard.voices) == (dropped_call("en"), 0, [])


async def test_where_the_model_greets_though_a_phrase_is_there(runtime: Runtime, voice: ToyVoice) -> None:
    """Of whom something is known, another persona, another way to greet: the phrase would be wrong."""
    await get_redis_cache()
    for phrase in phrases("en"):
        await VoiceSpeech(voice).prepare(None, phrase)
    for options in ({"agent": Agent(instructions="You are a pirate.")}, {"greeting": "Greet them in verse."}):
        heard = await first_words(voice, **options)
        assert (heard.text, heard.models) == (LIVE, 1)
    await runtime.store.save_profile("ada", "Name: Ada")
    await (await get_redis_cache()).delete(keys.profile("ada"))
    heard = await first_words(voice)
    assert (heard.text, heard.models) == (LIVE, 1)  # it does not ask for a name that it knows


async def test_where_no_phrase_was_spoken_the_model_greets(runtime: Runtime, voice: ToyVoice) -> None:
    await get_redis_cache()
    heard = await first_words(voice, says="Hello")
    assert (heard.text, heard.models) == (LIVE, 1)
    assert [text for text in voice.spoken if text in phrases("en")] == phrases("en")  # for the next ones, at hang-up


async def test_in_text_the_model_greets(runtime: Runtime, voice: ToyVoice) -> None:
    for phrase in phrases("en"):
        await VoiceSpeech(voice).prepare(None, phrase)
    async with conversation(voice) as (session, memory, talking, _speaker):
        session.output.set_audio_enabled(False)
        await (await memory.greet())
        assert [(message.text_content or "").strip() for message in session.history.messages()] == [LIVE]
        assert len(talking.asked) == 1
