"""What keeping speech depends on in LiveKit's voices, nodes and ``say``. See docs/upgrading.md."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, ModelSettings, inference, tts
from livekit.agents.voice.transcription.text_transforms import _apply_text_transforms
from livekit.plugins import openai

from tests.companion.speech.toy_voice import Speaker, ToyVoice, frame_of

pytestmark = pytest.mark.integration


async def text_of(text: str) -> AsyncIterator[str]:
    yield text


def test_the_options_of_known_voices_say_how_they_sound() -> None:
    """``companion.speech.voice_key``: a new option is one of the sound, or is left out of the name by hand."""
    voices = openai.TTS(api_key="k"), inference.TTS("cartesia/sonic-3", api_key="k", api_secret="s")
    assert [f"{type(voice).__module__}.{type(voice).__qualname__}" for voice in voices] == [
        "livekit.plugins.openai.tts.TTS",
        "livekit.agents.inference.tts.TTS",
    ]
    assert [{field.name for field in fields(voice._opts)} for voice in voices] == [
        {"model", "voice", "speed", "instructions", "response_format"},
        {
            *("model", "voice", "language", "encoding", "sample_rate", "extra_kwargs", "base_url"),
            *("api_key", "api_secret", "fallback", "conn_options"),
        },
    ]
    client = openai.TTS(api_key="k", base_url="https://a.test/v1")._client  # private: the contract
    assert str(client.base_url) == "https://a.test/v1/"
    assert client._custom_query == client._custom_headers == {}


def test_an_adapter_holds_the_voice_that_it_wraps() -> None:
    """``companion.speech.voice_key``: a ``StreamAdapter`` sounds as its voice does, a ``FallbackAdapter`` may not."""
    toy = ToyVoice()
    assert tts.StreamAdapter(tts=toy)._wrapped_tts is toy
    assert isinstance(tts.FallbackAdapter([toy]), tts.TTS)


def test_a_stream_around_a_voice_may_leave_these_to_it() -> None:
    """``companion.speech.cached_streams``: counting, and spans of attempts; an emitter takes frames and words."""
    for stream in (tts.ChunkedStream, tts.SynthesizeStream):
        counting = vars(stream)["_metrics_monitor_task"]
        assert list(inspect.signature(counting).parameters) == ["self", "event_aiter"]
        assert {"_tts_request_span_name", "_tts_attempt_span_name"} <= vars(stream).keys()
    assert callable(tts.AudioEmitter.push_frame)
    assert callable(tts.AudioEmitter.push_timed_transcript)
    assert callable(tts.SynthesizeStream._mark_started)


async def test_the_node_of_an_agent_asks_its_activity_for_these() -> None:
    """``companion.speech.session_speech``: the session, the voice, and whether it is expressive; else it cannot run."""
    session: AgentSession[Any] = AgentSession(tts=ToyVoice(), vad=None, turn_handling={"turn_detection": None})
    session.output.audio = Speaker()
    agent = Agent(instructions="kind")
    await session.start(agent)
    await session.aclose()
    with pytest.raises(RuntimeError):
        _ = [frame async for frame in Agent.default.tts_node(agent, text_of("Hello there."), ModelSettings())]
    activity: Any = SimpleNamespace(session=session, tts=session.tts, _resolve_expressive_options=lambda: None)
    agent._activity = activity
    frames = [frame async for frame in Agent.default.tts_node(agent, text_of("Hello there."), ModelSettings())]
    assert sum(frame.duration for frame in frames) >= 0.2


async def test_text_transforms_can_be_applied_without_a_session() -> None:
    """``companion.speech.session_speech``: those with a name too."""
    assert (
        "".join([piece async for piece in _apply_text_transforms(text_of("**Hello**"), ["filter_markdown"])]) == "Hello"
    )


async def test_given_frames_are_played_past_node_and_transforms() -> None:
    """``companion.conversation.greeter``: ``say(audio=)`` plays them as they are; the text is in the history."""

    class Silent(Agent):
        async def tts_node(self, text: AsyncIterable[str], model_settings: ModelSettings) -> AsyncIterator[Any]:
            raise AssertionError("the node was asked")
            yield

    async def frames() -> AsyncIterator[rtc.AudioFrame]:
        yield frame_of(0.3)

    session: AgentSession[Any] = AgentSession(vad=None, turn_handling={"turn_detection": None})
    speaker = session.output.audio = Speaker()
    async with session:
        await session.start(Silent(instructions="kind"))
        await session.say("**Hello**", audio=frames())
        assert [message.text_content for message in session.history.messages()] == ["**Hello**"]
    assert abs(sum(frame.duration for frame in speaker.frames) - 0.3) < 0.01
