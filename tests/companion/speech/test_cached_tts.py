"""A voice that speaks each phrase once, for all processes, and nothing of a person for others."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Any

import pytest
from livekit.agents import AgentSession, APIError, inference, tts
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT
from livekit.agents.utils import http_context
from livekit.plugins import openai
from openai import AsyncOpenAI

from cache import RedisCache, get_redis_cache
from companion.runtime import Runtime
from companion.speech import CachedTTS, cached_tts, keep_private, recordings
from companion.speech.recordings import PhraseMemory
from companion.speech.voice_key import voice_key
from tests.companion.speech.toy_voice import ToyVoice, heard, heard_pieces
from tests.real.models.inference_server import InferenceServer
from tests.real.models.openai_server import OpenAIServer
from tests.real.redis.redis_server import RedisServer
from tests.wait import initialised

pytestmark = pytest.mark.integration
PHRASE = "One moment, please."


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets this process forget what it plays, as a new one would."""

    def forget() -> None:
        monkeypatch.setattr(recordings, "memory", PhraseMemory())

    forget()
    return forget


@pytest.fixture(params=[False, True], ids=["whole", "streaming"])
async def toy(request: pytest.FixtureRequest, runtime: Runtime) -> ToyVoice:
    await get_redis_cache()
    return ToyVoice(streaming=request.param)


def kept(redis_server: RedisServer) -> list[str]:
    """The keys of what is kept."""
    return sorted(redis_server.cli("KEYS", "speech:*"))


async def test_a_phrase_is_spoken_once(toy: ToyVoice, forget: Any, redis_server: RedisServer) -> None:
    usage: list[Any] = []
    voice = CachedTTS(toy, key="hum")
    voice.on("metrics_collected", usage.append)
    first = await heard(voice, PHRASE)
    assert len(kept(redis_server)) == 1
    assert [one.characters_count for one in usage] == [len(PHRASE)]
    again = await heard(voice, PHRASE)  # out of the process's memory
    forget()
    other = CachedTTS(ToyVoice(streaming=toy.capabilities.streaming), key="hum")
    elsewhere = await heard(other, PHRASE)  # out of Redis
    assert toy.spoken == [PHRASE]
    assert other.voice.spoken == []  # type: ignore[attr-defined]  # the toy's own
    assert abs(first.duration - 0.3) < 0.05
    assert again.samples_per_channel == elsewhere.samples_per_channel
    assert abs(again.duration - 0.3) < 0.05
    assert len(usage) == 1  # what is kept costs nothing
    assert (voice.saved.phrases, voice.saved.characters) == (1, len(PHRASE))
    assert voice.saved.milliseconds > 0
    await voice.aclose()
    assert not toy.closed


async def test_another_voice_speaks_itself(toy: ToyVoice) -> None:
    await heard(CachedTTS(toy, key="hum"), PHRASE)
    await heard(CachedTTS(toy, key="hum, angry"), PHRASE)
    assert toy.spoken == [PHRASE, PHRASE]


async def test_one_synthesis_for_all_who_ask_at_once(toy: ToyVoice) -> None:
    toy.pause = 0.1
    voice = CachedTTS(toy, key="hum")
    all_heard = await asyncio.gather(*(heard(voice, PHRASE) for _ in range(5)))
    assert toy.spoken == [PHRASE]
    assert {round(one.duration, 1) for one in all_heard} == {0.3}


async def test_one_synthesis_across_processes(
    toy: ToyVoice, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two caches stand for two processes: they share nothing but Redis."""
    caches = [RedisCache(redis_server.url) for _ in range(2)]
    for cache in caches:
        await initialised(cache)
    turns = itertools.cycle(caches)

    async def next_cache() -> RedisCache:
        return next(turns)

    monkeypatch.setattr(recordings, "get_redis_cache", next_cache)
    toy.pause = 0.2
    voices = [CachedTTS(toy, key="hum") for _ in range(4)]
    all_heard = await asyncio.gather(*(heard(voice, PHRASE) for voice in voices))
    assert toy.spoken == [PHRASE]
    assert {round(one.duration, 1) for one in all_heard} == {0.3}
    for cache in caches:
        await cache.close()


async def test_who_waits_too_long_for_another_speaks_live(toy: ToyVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_tts, "PATIENCE", 0.05)
    toy.pause = 0.5
    voice = CachedTTS(toy, key="hum")
    await asyncio.gather(heard(voice, PHRASE), heard(voice, PHRASE))
    assert toy.spoken == [PHRASE, PHRASE]


async def test_what_is_personal_is_spoken_anew(toy: ToyVoice, redis_server: RedisServer) -> None:
    voice = CachedTTS(toy, key="hum")
    session: AgentSession[Any] = AgentSession()
    keep_private(session, lambda: "Likes chess")
    for text in ("How is the chess?", "It is 7."):
        assert (await heard(voice, text)).duration > 0.1
        await heard(voice, text)
    assert len(toy.spoken) == 4
    assert kept(redis_server) == []
    session.emit("close", None)
    assert voice.key_of("How is the chess?") is not None


async def test_a_stream_of_pieces_is_passed_on(runtime: Runtime, redis_server: RedisServer) -> None:
    toy = ToyVoice(streaming=True)
    voice = CachedTTS(toy, key="hum")
    assert abs((await heard_pieces(voice, ["One ", "moment, ", "please."])).duration - 0.3) < 0.05
    assert toy.spoken == [PHRASE]
    assert kept(redis_server) == []


async def test_words_come_with_what_is_kept(toy: ToyVoice) -> None:
    voice = CachedTTS(toy, key="hum")
    for _ in range(2):
        async with voice.synthesize(PHRASE) as stream:
            words = [word async for event in stream for word in event.frame.userdata[USERDATA_TIMED_TRANSCRIPT]]
        assert [(str(word).strip(), word.start_time) for word in words] == [
            ("One", 0.0),
            ("moment,", 0.1),
            ("please.", 0.2),
        ]
    assert len(toy.spoken) == 1


async def test_a_voice_that_fails_is_one_error_and_nothing_is_kept(toy: ToyVoice, redis_server: RedisServer) -> None:
    errors: list[Any] = []
    voice = CachedTTS(toy, key="hum")
    voice.on("error", errors.append)
    toy.broken = True
    with pytest.raises(APIError):
        await heard(voice, PHRASE)
    assert [error.recoverable for error in errors] == [False]
    assert kept(redis_server) == []
    toy.broken = False
    assert abs((await heard(voice, PHRASE)).duration - 0.3) < 0.05


async def test_who_waits_for_a_voice_that_fails_speaks_live(toy: ToyVoice) -> None:
    voice = CachedTTS(toy, key="hum")
    toy.pause, toy.fails = 0.05, 1
    both = await asyncio.gather(heard(voice, PHRASE), heard(voice, PHRASE), return_exceptions=True)
    assert len([one for one in both if isinstance(one, APIError)]) == 1
    assert [round(one.duration, 1) for one in both if not isinstance(one, BaseException)] == [0.3]


async def test_what_cannot_be_played_is_spoken_anew(toy: ToyVoice, forget: Any, redis_server: RedisServer) -> None:
    voice = CachedTTS(toy, key="hum")
    await heard(voice, PHRASE)
    cache = await get_redis_cache()
    (key,) = kept(redis_server)
    raw = await cache.get(key)
    for broken in (raw[:-9] + b"123456789", b"", "text", {"a": 1}):
        forget()
        await cache.set(key, broken)
        assert abs((await heard(voice, PHRASE)).duration - 0.3) < 0.05
        assert len(await cache.get(key)) > 500  # and kept anew
    assert len(toy.spoken) == 5


async def test_without_redis_it_speaks(toy: ToyVoice, forget: Any) -> None:
    (await get_redis_cache()).disable()
    voice = CachedTTS(toy, key="hum")
    assert abs((await heard(voice, PHRASE)).duration - 0.3) < 0.05


async def test_phrases_can_be_spoken_beforehand(toy: ToyVoice) -> None:
    voice = CachedTTS(toy, key="hum")
    await voice.warm(PHRASE, "It is 7.", PHRASE)
    assert toy.spoken == [PHRASE]
    assert await voice.is_kept(PHRASE)


async def test_voices_whose_speech_is_not_kept(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    """A voice that nothing is known of, and one that another may stand in for."""
    caplog.set_level(logging.WARNING, "companion")
    toy = ToyVoice()
    for voice in (CachedTTS(toy), CachedTTS(tts.FallbackAdapter([toy]), key="any")):
        caplog.clear()
        for _ in range(2):
            assert abs((await heard(voice, PHRASE)).duration - 0.3) < 0.05
        assert len([one for one in caplog.records if "is not kept" in one.getMessage()]) <= 1
    assert len(toy.spoken) == 4
    other = inference.TTS("cartesia/sonic-3", api_key="k", api_secret="s", fallback="deepgram/aura")
    assert voice_key(other) is None


def test_known_voices_are_named_by_what_they_sound_like() -> None:
    def named(**options: Any) -> str | None:
        return voice_key(openai.TTS(**({"api_key": "sk-1"} | options)))

    assert named() == named(api_key="sk-2")
    changes: list[dict[str, Any]] = [{"voice": "onyx"}, {"speed": 1.2}, {"model": "tts-1"}, {"instructions": "Low."}]
    assert len({named(), *(named(**change) for change in changes)}) == 5
    assert "sk-" not in (named() or "")
    at, azure = "https://gateway.test/v1/{}".format, {"azure_endpoint": "https://a.test", "api_version": "1"}
    deployments = [
        voice_key(openai.TTS.with_azure(api_key="sk-1", azure_deployment=name, **azure)) for name in ("ada", "onyx")
    ]
    clients = [
        AsyncOpenAI(api_key="sk-1", base_url=at(""), default_headers={"x-provider": name}, default_query={"v": value})
        for name, value in (("a", "1"), ("b", "1"), ("a", "2"))
    ]
    behind_one_host = [*(named(base_url=at(path)) for path in ("a", "b")), *(named(client=one) for one in clients)]
    assert named(base_url=at("a")) == named(base_url=at("a"), api_key="sk-2")
    assert len({*deployments, *behind_one_host}) == 7
    keys = {"api_key": "secret-k", "api_secret": "secret-s"}
    first, second = (inference.TTS("cartesia/sonic-3", language=code, **keys) for code in ("en", "de"))
    assert voice_key(first) not in (voice_key(second), None)
    assert "secret" not in (voice_key(first) or "")
    before = voice_key(first)
    first.update_options(voice="another")
    assert voice_key(first) not in (before, None)


async def test_over_the_wire_of_livekit_inference(runtime: Runtime) -> None:
    """Its voice streams: what comes whole is kept, and what comes in pieces is not."""
    async with InferenceServer([], tone=True) as server, http_context.open():
        inner = inference.TTS("cartesia/sonic-3", api_key="k", api_secret="s" * 32, base_url=server.base_url)
        voice = CachedTTS(inner)
        for _ in range(2):
            assert (await heard(voice, PHRASE)).duration > 0.09
        assert (await heard_pieces(voice, ["How are you", "? And what", " about me?"])).duration > 0.09
        assert server.spoken == [PHRASE, "How are you? And what about me?"]
        await inner.aclose()


async def test_over_the_wire(runtime: Runtime) -> None:
    async with OpenAIServer([], tone=True) as server:
        inner = openai.TTS(base_url=server.base_url, api_key="k", response_format="pcm")
        voice = CachedTTS(inner)
        assert (voice.model, voice.provider, voice.capabilities) == (inner.model, inner.provider, inner.capabilities)
        for _ in range(3):
            assert (await heard(voice, PHRASE)).duration > 0.09
        assert server.spoken == [PHRASE]
        await inner.aclose()
