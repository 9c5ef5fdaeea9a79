"""The speech of a greeting is spoken when a conversation ends, and played at the next start of the same person."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, ModelSettings, llm

from cache import get_redis_cache
from companion.phrases import phrases
from companion.runtime import Runtime
from companion.settings import Settings
from companion.speech import CachedTTS, session_speech
from companion.voice.agent import CompanionAgent
from companion.voice.models import make_voice
from companion.voice.prepared_speech import NoSpeech, PreparedSpeech, speak_phrases, speech_of
from tests.companion.speech.toy_voice import Speaker, ToyVoice, frame_of
from tests.real.models.openai_server import OpenAIServer
from tests.real.redis.redis_server import RedisServer

pytestmark = pytest.mark.integration
TEXT = "Welcome back, Ann. How was the chess?"


class Shouter(Agent):
    """An agent with a sound of its own: what the voice says, then a tone of half a second."""

    async def tts_node(self, text: AsyncIterable[str], model_settings: ModelSettings) -> AsyncIterator[rtc.AudioFrame]:
        async for frame in Agent.default.tts_node(self, text, model_settings):
            yield frame
        yield frame_of(0.5)


@asynccontextmanager
async def conversation(
    agent: Agent, voice: Any = None, **options: Any
) -> AsyncIterator[tuple[AgentSession[Any], PreparedSpeech, Speaker]]:
    """A session that has started. It is closed at the end of the block."""
    session: AgentSession[Any] = AgentSession(tts=voice, vad=None, turn_handling={"turn_detection": None}, **options)
    speaker = Speaker()
    session.output.audio = speaker
    speech = speech_of(session)
    await session.start(agent)
    speech.speak_as(agent)
    try:
        yield session, speech, speaker
    finally:
        await session.aclose()


@pytest.fixture
async def toy(runtime: Runtime) -> CachedTTS:
    await get_redis_cache()
    return CachedTTS(ToyVoice(), key="hum")


def spoken(voice: CachedTTS) -> list[str]:
    assert isinstance(voice.voice, ToyVoice)
    return voice.voice.spoken


async def test_it_is_spoken_at_the_end_and_played_at_the_next_start(toy: CachedTTS, redis_server: RedisServer) -> None:
    async with conversation(CompanionAgent(), toy) as (_, speech, _speaker):
        assert await speech.find("1", TEXT) is None
    await speech.prepare("1", TEXT)  # the session is closed
    assert spoken(toy) == [TEXT]
    assert [key.split(":")[:3] for key in redis_server.cli("KEYS", "*speech:*")] == [["user", "1", "speech"]]
    (key,) = redis_server.cli("KEYS", "user:1:speech:*")
    assert "OggS" in redis_server.cli("GET", key)
    assert 570_000 < int(redis_server.cli("TTL", key)) <= 604_800
    async with conversation(CompanionAgent(), toy) as (session, speech, speaker):
        frames = await speech.find("1", TEXT)
        assert frames is not None
        await session.say(TEXT, audio=frames)
        assert abs(sum(frame.duration for frame in speaker.frames) - 0.7) < 0.05
        assert [item.text_content for item in session.history.items if isinstance(item, llm.ChatMessage)] == [TEXT]
        for other in (("2", TEXT), ("1", f"{TEXT} Well?"), (None, TEXT)):
            assert await speech.find(*other) is None  # another person, another text
    assert spoken(toy) == [TEXT]  # no voice was asked for it again
    await (await get_redis_cache()).clear_user_cache("1")
    assert await speech.find("1", TEXT) is None


async def test_a_phrase_for_everybody(toy: CachedTTS, redis_server: RedisServer) -> None:
    async with conversation(CompanionAgent(), toy) as (_, speech, _speaker):
        for _ in range(2):
            await speech.prepare(None, "Hello, nice to meet you.")
        assert await speech.find(None, "Hello, nice to meet you.") is not None
        (key,) = redis_server.cli("KEYS", "*speech:*")
        assert key.startswith("speech:")
        redis_server.cli("EXPIRE", key, 60)
        await speech.prepare(None, "Hello, nice to meet you.")  # who needs it lets it live
        assert redis_server.cli("TTL", key) > 600_000
        redis_server.cli("DEL", key)
        await speech.prepare(None, "Hello, nice to meet you.")
        assert redis_server.cli("TTL", key) > 570_000  # and gives it to the others
    assert len(spoken(toy)) == 1


async def test_another_voice_does_not_play_it(toy: CachedTTS) -> None:
    async with conversation(CompanionAgent(), toy) as (_, speech, _speaker):
        await speech.prepare("1", TEXT)
    async with conversation(CompanionAgent(), CachedTTS(ToyVoice(), key="hum, angry")) as (_, speech, _speaker):
        assert await speech.find("1", TEXT) is None


async def test_an_agents_own_sound_and_the_sessions_transforms_are_in_it(toy: CachedTTS) -> None:
    """``say`` plays frames as they are, so that both are applied before; also when the session is closed."""

    def shout(text: AsyncIterable[str]) -> AsyncIterable[str]:
        async def pieces() -> AsyncIterator[str]:
            async for piece in text:
                yield piece.upper()

        return pieces()

    options: dict[str, Any] = {"tts_text_transforms": ["filter_markdown", shout]}
    async with conversation(Shouter(instructions="shout"), toy, **options) as (session, speech, speaker):
        pass
    await speech.prepare("1", "**Welcome** back.")
    assert spoken(toy) == ["WELCOME BACK."]
    with pytest.raises(RuntimeError):
        _ = speech._agent.session  # type: ignore[attr-defined]  # private: the agent is as it was
    async with conversation(Shouter(instructions="shout"), toy, **options) as (session, speech, speaker):
        frames = await speech.find("1", "**Welcome** back.")
        assert frames is not None
        await session.say("**Welcome** back.", audio=frames)
        assert abs(sum(frame.duration for frame in speaker.frames) - 0.7) < 0.05
    async with conversation(Agent(instructions="calm"), toy) as (_, speech, _speaker):
        assert await speech.find("1", "**Welcome** back.") is None
        assert await speech.find("1", "WELCOME BACK.") is None  # with the sound of another agent


async def test_a_worker_speaks_the_phrases_once(runtime: Runtime, tmp_path: Path) -> None:
    await get_redis_cache()
    async with OpenAIServer([], tone=True) as server:
        settings = Settings(tmp_path, "openai", openai_api_key="k", openai_base_url=server.base_url, language="de-AT")
        for _ in range(2):
            await speak_phrases(settings)
        assert server.spoken == phrases("de")
        await speak_phrases(replace(settings, prepare_speech=False, language="en"))
        assert server.spoken == phrases("de")
        async with conversation(CompanionAgent(), make_voice(settings)) as (_, speech, _speaker):
            assert await speech.find(None, phrases("de")[0]) is not None


async def test_a_broken_recording_is_not_played(toy: CachedTTS, redis_server: RedisServer) -> None:
    cache = await get_redis_cache()
    async with conversation(CompanionAgent(), toy) as (_, speech, _speaker):
        await speech.prepare("1", TEXT)
        (key,) = redis_server.cli("KEYS", "user:1:speech:*")
        raw = await cache.get(key)
        for broken in (raw[: len(raw) // 2], raw[:-1] + b"?", b"", "text", None):
            await cache.set(key, broken)
            assert await speech.find("1", TEXT) is None
        await speech.prepare("1", TEXT)
        assert await speech.find("1", TEXT) is not None


async def test_with_keys_it_is_encrypted(
    runtime: Runtime, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_ENCRYPTION_KEYS", "A" * 43)
    await get_redis_cache()
    async with conversation(CompanionAgent(), CachedTTS(ToyVoice(), key="hum")) as (_, speech, _speaker):
        await speech.prepare("1", TEXT)
        (key,) = redis_server.cli("KEYS", "user:1:speech:*")
        assert redis_server.cli("STRLEN", key) > 1_000
        assert "OggS" not in redis_server.cli("GET", key)
        assert await speech.find("1", TEXT) is not None
        redis_server.cli("RENAME", key, key.replace("user:1:", "user:2:"))
        assert await speech.find("2", TEXT) is None  # what was spoken for one person cannot be given to another


async def test_a_voice_that_fails_or_is_late_ends_nothing(
    toy: CachedTTS, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "companion")
    monkeypatch.setattr(session_speech, "TIMEOUT", 0.2)
    voice = toy.voice
    assert isinstance(voice, ToyVoice)
    async with conversation(CompanionAgent(), toy) as (_, speech, _speaker):
        voice.broken = True
        await speech.prepare("1", TEXT)
        voice.broken, voice.pause = False, 30.0
        await speech.prepare("1", TEXT)
        assert await speech.find("1", TEXT) is None
    lines = [one.getMessage() for one in caplog.records if "could not be prepared" in one.getMessage()]
    assert [line.rpartition("(")[2] for line in lines] == ["APIConnectionError)", "TimeoutError)"]
    assert "Ann" not in caplog.text


async def test_where_no_speech_is_prepared(toy: CachedTTS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Redis, where it is turned off, in a conversation in text, and for a voice without a name."""
    async with conversation(CompanionAgent(), toy) as (session, speech, _speaker):
        session.output.set_audio_enabled(False)
        await speech.prepare("1", TEXT)
        assert await speech.find("1", TEXT) is None
        session.output.set_audio_enabled(True)
        (await get_redis_cache()).disable()
        await speech.prepare("1", TEXT)
        assert await speech.find("1", TEXT) is None
        (await get_redis_cache()).enable()
    unnamed = ToyVoice()
    async with conversation(CompanionAgent(), unnamed) as (_, speech, _speaker):
        await speech.prepare("1", TEXT)
    async with conversation(CompanionAgent()) as (_, speech, _speaker):
        await speech.prepare("1", TEXT)
    assert spoken(toy) == unnamed.spoken == []
    monkeypatch.setenv("COMPANION_PREPARE_SPEECH", "false")
    assert isinstance(speech_of(AgentSession()), NoSpeech)
