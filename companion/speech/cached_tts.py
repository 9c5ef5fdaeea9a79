"""A voice that speaks each phrase once::

    session = AgentSession(tts=CachedTTS("cartesia/sonic-3"), ...)
    session = AgentSession(tts=CachedTTS(elevenlabs.TTS(voice_id="..."), key="anna, calm"), ...)

It keeps the speech of whole texts: ``session.say("One moment, please.")``, and the sentences of a voice that cannot
stream, in the memory of the process and in Redis for all processes. What holds a digit, or a word that is known of the
person in the conversation (``attach``), is spoken anew each time, for their ears alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from livekit import rtc
from livekit.agents import APIConnectOptions, inference, tts
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS
from opentelemetry import metrics

from cache import LoadTimeout, keys, retrieve_exception

from .cached_streams import CachedChunkedStream, CachedSynthesizeStream, Emitter
from .private_words import private_words
from .recording import Recording, UnusableRecording
from .recordings import Speak, find, record
from .shareable import is_shareable
from .voice_key import speech_id, voice_key

logger = logging.getLogger("companion")
PATIENCE: Final = 3.0
"""Seconds to wait for a phrase that another process, or another conversation, is recording."""
_meter = metrics.get_meter("companion")
_characters = _meter.create_counter("companion.speech.saved_characters", description="Characters no voice had to speak")
_time = _meter.create_counter("companion.speech.saved_time", unit="ms", description="Time to the first sound, saved")


@dataclass(slots=True)
class Saved:
    """What a voice did not have to do.

    Attributes:
        phrases: that were played from what is kept.
        characters: of them.
        milliseconds: until the voice would have made its first sounds.
    """

    phrases: int = 0
    characters: int = 0
    milliseconds: float = 0.0


class CachedTTS(tts.TTS[Any]):
    """A voice in front of another one, which keeps what everybody may hear.

    Args:
        voice: the other voice, or a model string of LiveKit Inference. It stays yours to close.
        key: names the voice and its settings. Needed for all voices but OpenAI's and those of LiveKit Inference;
            without, everything is spoken live. A voice that changes its settings gets another key.

    Attributes:
        voice: the other voice.
        saved: what this one saved.
    """

    def __init__(self, voice: tts.TTS[Any] | str, *, key: str | None = None) -> None:
        self.voice = inference.TTS.from_model_string(voice) if isinstance(voice, str) else voice
        super().__init__(
            capabilities=self.voice.capabilities,
            sample_rate=self.voice.sample_rate,
            num_channels=self.voice.num_channels,
        )
        self.saved = Saved()
        self._label = self.voice.label
        self._named = key
        self.voice.on("metrics_collected", self._forward_metrics)

    class Markup(tts.TTS.Markup):
        """The markup of the other voice."""

        def _provider_key(self) -> str:
            return self._tts.voice.markup._provider_key() if isinstance(self._tts, CachedTTS) else ""

    @property
    def capabilities(self) -> tts.TTSCapabilities:
        """What the other voice can do."""
        return self.voice.capabilities

    @property
    def model(self) -> str:
        """The model of the other voice."""
        return self.voice.model

    @property
    def provider(self) -> str:
        """The provider of the other voice."""
        return self.voice.provider

    @property
    def voice_key(self) -> str | None:
        """The name of the other voice as it is set up now; None where nothing can be kept."""
        return voice_key(self.voice, self._named)

    async def warm(self, *phrases: str) -> None:
        """Speak the phrases that are not kept yet, so that no conversation waits for their speech.

        Raises:
            APIError: the voice failed.
            LoadTimeout: it took longer than a minute.
            UnusableRecording: what it spoke cannot be kept, such as silence.
        """
        for phrase in phrases:
            if (key := self.key_of(phrase)) is not None:
                await record(key, partial(self._speak, phrase, DEFAULT_API_CONNECT_OPTIONS), ahead=True)

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> CachedChunkedStream:
        """The speech of a text, from what is kept or live."""
        return CachedChunkedStream(tts=self, say=self._say, input_text=text, conn_options=conn_options)

    def stream(self, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS) -> tts.SynthesizeStream:
        """A stream of text: one that comes whole, as ``say`` passes it on, may be kept; others are spoken live."""
        if not self.capabilities.streaming:
            return super().stream(conn_options=conn_options)
        return CachedSynthesizeStream(tts=self, say=self._say, inner=self.voice, conn_options=conn_options)

    def prewarm(self) -> None:
        """Let the other voice connect."""
        self.voice.prewarm()

    async def aclose(self) -> None:
        """Leave the other voice, which is not closed."""
        self.voice.off("metrics_collected", self._forward_metrics)

    def key_of(self, text: str) -> keys.Key | None:
        """The key of the speech of a text; None where it is not kept."""
        name = self.voice_key
        if name is None or not is_shareable(text, private_words()):
            return None
        return keys.shared_speech(speech_id(name, text.strip()))

    async def _say(self, text: str, emitter: Emitter, conn_options: APIConnectOptions) -> None:
        """Give an emitter the speech of a text."""
        key = self.key_of(text)
        spoken = False

        async def speak() -> AsyncIterator[rtc.AudioFrame]:
            nonlocal spoken
            spoken = True
            async for frame in self._speak(text, conn_options):
                emitter.frame(frame)
                yield frame

        recording: Recording | None = None
        if key is not None:
            recording = await self._record(key, speak, lambda: spoken)
        if spoken:
            return
        if recording is None or (recording.sample_rate, recording.channels) != (self.sample_rate, self.num_channels):
            async for frame in self._speak(text, conn_options):
                emitter.frame(frame)
            return
        self._count(text, recording)
        emitter.words(recording.transcript)
        async for frame in recording.play():
            emitter.frame(frame)

    async def is_kept(self, text: str) -> bool:
        """Whether the speech of a text is kept."""
        key = self.key_of(text)
        return key is not None and await find(key) is not None

    async def _record(self, key: keys.Key, speak: Speak, spoken: Callable[[], bool]) -> Recording | None:
        """The recording with a key, if it is there soon, or ``speak`` is what is recorded."""
        recording = asyncio.create_task(record(key, speak), name="cached-tts-record")
        try:
            await asyncio.wait({recording}, timeout=PATIENCE)
            return await recording if recording.done() or spoken() else None
        except Exception as problem:
            if spoken() and not isinstance(problem, UnusableRecording | LoadTimeout | ValueError):
                raise  # the voice's own: it says what is wrong, and whether to try again
            # Where the voice of another conversation failed, this one tries by itself.
            logger.info("the speech of a phrase is not kept (%s)", type(problem).__name__)
            return None
        finally:
            recording.cancel()
            recording.add_done_callback(retrieve_exception)

    async def _speak(self, text: str, conn_options: APIConnectOptions) -> AsyncIterator[rtc.AudioFrame]:
        if not self.capabilities.streaming:
            async with self.voice.synthesize(text, conn_options=conn_options) as whole:
                async for event in whole:
                    yield event.frame
            return
        async with self.voice.stream(conn_options=conn_options) as stream:
            stream.push_text(text)
            stream.end_input()
            async for event in stream:
                yield event.frame

    def _count(self, text: str, recording: Recording) -> None:
        self.saved.phrases += 1
        self.saved.characters += len(text)
        self.saved.milliseconds += recording.first_byte * 1000
        _characters.add(len(text))
        _time.add(recording.first_byte * 1000)

    def _forward_metrics(self, *args: Any, **options: Any) -> None:
        self.emit("metrics_collected", *args, **options)

    def _set_expressive(self, enabled: bool) -> None:
        super()._set_expressive(enabled)
        self.voice._set_expressive(enabled)
