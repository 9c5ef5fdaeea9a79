"""A voice that hums: it counts what it speaks, and can be slow, silent or broken."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Iterable
from typing import Any

from livekit import rtc
from livekit.agents import APIConnectionError, APIConnectOptions, tts, utils
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, TimedString
from livekit.agents.voice.io import AudioOutput, AudioOutputCapabilities

NO_RETRY = APIConnectOptions(max_retry=0, timeout=5.0)


def hum(seconds: float, rate: int = 24_000, channels: int = 1) -> bytes:
    """A tone."""
    samples = [int(8_000 * math.sin(2 * math.pi * 300 * at / rate)) for at in range(int(seconds * rate))]
    return struct.pack(f"<{len(samples) * channels}h", *(one for one in samples for _ in range(channels)))


def frame_of(seconds: float, rate: int = 24_000, channels: int = 1) -> rtc.AudioFrame:
    """A frame with a tone."""
    return rtc.AudioFrame(hum(seconds, rate, channels), rate, channels, int(seconds * rate))


class ToyVoice(tts.TTS[Any]):
    """Hums a tenth of a second for each word, and says when each word comes.

    Args:
        streaming: whether it takes a stream of text.
        pause: seconds before the first sound.
    """

    def __init__(self, *, streaming: bool = False, pause: float = 0.0) -> None:
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=streaming, aligned_transcript=streaming),
            sample_rate=24_000,
            num_channels=1,
        )
        self.pause = pause
        self.broken = False
        self.fails = 0  # so many times
        self.closed = False
        self.spoken: list[str] = []

    @property
    def model(self) -> str:
        return "toy"

    @property
    def provider(self) -> str:
        return "tests"

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        return _Whole(tts=self, input_text=text, conn_options=conn_options)

    def stream(self, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS) -> tts.SynthesizeStream:
        return _Pieces(tts=self, conn_options=conn_options) if self.capabilities.streaming else super().stream()

    async def aclose(self) -> None:
        self.closed = True

    async def hum_words(self, text: str, emitter: tts.AudioEmitter) -> None:
        """Hum a text."""
        self.spoken.append(text)
        await asyncio.sleep(self.pause)
        if self.broken or self.fails:
            self.fails = max(self.fails - 1, 0)
            raise APIConnectionError("the toy is broken", retryable=False)
        for index, word in enumerate(text.split()):
            emitter.push_timed_transcript(TimedString(f"{word} ", start_time=index / 10, end_time=index / 10 + 0.1))
            emitter.push(hum(0.1))
        emitter.flush()


class _Whole(tts.ChunkedStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        assert isinstance(self._tts, ToyVoice)
        output_emitter.initialize(
            request_id=utils.shortuuid(), sample_rate=24_000, num_channels=1, mime_type="audio/pcm"
        )
        await self._tts.hum_words(self._input_text, output_emitter)


class _Pieces(tts.SynthesizeStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        assert isinstance(self._tts, ToyVoice)
        output_emitter.initialize(
            request_id=utils.shortuuid(), sample_rate=24_000, num_channels=1, mime_type="audio/pcm", stream=True
        )
        output_emitter.start_segment(segment_id=utils.shortuuid())
        text = ""
        async for piece in self._input_ch:
            text += piece if isinstance(piece, str) else ""
        self._mark_started()
        await self._tts.hum_words(text, output_emitter)


async def heard(voice: tts.TTS[Any], text: str) -> rtc.AudioFrame:
    """The speech of a whole text, as the framework reads it."""
    if not voice.capabilities.streaming:
        return await voice.synthesize(text, conn_options=NO_RETRY).collect()
    return await heard_pieces(voice, [text])


async def heard_pieces(voice: tts.TTS[Any], pieces: Iterable[str]) -> rtc.AudioFrame:
    """The speech of a stream of text."""
    async with voice.stream(conn_options=NO_RETRY) as stream:
        for piece in pieces:
            stream.push_text(piece)
            await asyncio.sleep(0)
        stream.end_input()
        return rtc.combine_audio_frames([event.frame async for event in stream])


class Speaker(AudioOutput):
    """Plays at once, and keeps what it played."""

    def __init__(self) -> None:
        super().__init__(label="speaker", capabilities=AudioOutputCapabilities(pause=False), sample_rate=24_000)
        self.frames: list[rtc.AudioFrame] = []
        self._segment = 0.0

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        self.frames.append(frame)
        self._segment += frame.duration

    def flush(self) -> None:
        super().flush()
        if self._segment:
            self.on_playback_finished(playback_position=self._segment, interrupted=False)
        self._segment = 0.0

    def clear_buffer(self) -> None:
        """Nothing is buffered."""
