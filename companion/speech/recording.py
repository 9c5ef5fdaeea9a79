"""The speech of one text as it is kept: Opus in an Ogg stream (RFC 7845), its length, its words, and a digest of all.

It is decoded fully once, when it is made. From then on the digest stands for that: what has it is played as it streams.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import av
from av.audio.resampler import AudioResampler
from livekit import rtc
from livekit.agents import NOT_GIVEN, utils
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT, TimedString

MAX_SECONDS: Final = 60.0
"""The longest recording, in seconds: it is for a phrase or a greeting, not for a story."""
_BITS_PER_SECOND: Final = 24_000  # of a channel: speech of four seconds takes about 12 KiB
_OPUS_RATES: Final = (8_000, 12_000, 16_000, 24_000, 48_000)
_DIGEST_BYTES: Final = 32
_LENGTH_BYTES: Final = 4

Word = tuple[str, float | None, float | None]
"""A piece of the transcript, and when it begins and ends, in seconds."""


class UnusableRecording(Exception):
    """A recording cannot be made, or is not what was stored. The text says why, nothing of what is said."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The speech of one text.

    Attributes:
        sample_rate: samples a second, as the voice made them.
        channels: 1 or 2.
        samples: of each channel.
        opus: the sound, an Ogg stream of Opus packets.
        words: the timed transcript; empty where the voice gives none.
        first_byte: seconds that the voice took to its first sound.
    """

    sample_rate: int
    channels: int
    samples: int
    opus: bytes
    words: tuple[Word, ...] = ()
    first_byte: float = 0.0

    @classmethod
    async def of(cls, speech: AsyncIterable[rtc.AudioFrame]) -> Recording:
        """Record ``speech``, and decode the recording once.

        Raises:
            UnusableRecording: there is no sound, too much of it, or it does not come back as long as it was.
            Exception: what the voice raises.
        """
        began, first_byte, seconds = time.perf_counter(), 0.0, 0.0
        frames: list[rtc.AudioFrame] = []
        words: list[Word] = []
        async for frame in speech:
            first_byte = first_byte or time.perf_counter() - began
            words += [_word(one) for one in frame.userdata.get(USERDATA_TIMED_TRANSCRIPT, ())]
            seconds += frame.duration
            if seconds <= MAX_SECONDS:  # it is played while it is recorded, so that it goes on all the same
                frames.append(frame)
        if not 0 < seconds <= MAX_SECONDS:
            raise UnusableRecording("it is too long to be kept" if seconds else "it has no sound")
        return await asyncio.to_thread(cls._encoded, frames, tuple(words), first_byte)

    @classmethod
    def _encoded(cls, frames: Sequence[rtc.AudioFrame], words: tuple[Word, ...], first_byte: float) -> Recording:
        try:
            whole = rtc.combine_audio_frames(list(frames))
            if not any(whole.data):
                raise UnusableRecording("it is silent")
            samples, channels = whole.samples_per_channel, whole.num_channels
            made = cls(whole.sample_rate, channels, samples, _encode(whole), words, first_byte)
            decoded = sum(frame.samples_per_channel for frame in made.decode())
        except (ValueError, av.FFmpegError) as problem:
            raise UnusableRecording(f"it cannot be encoded ({type(problem).__name__})") from None
        if decoded != made.samples:
            raise UnusableRecording("it does not come back as long as it was")
        return made

    def pack(self) -> bytes:
        """The bytes to keep."""
        about = [self.sample_rate, self.channels, self.samples, round(self.first_byte, 4), self.words]
        head = json.dumps(about, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        body = len(head).to_bytes(_LENGTH_BYTES, "big") + head + self.opus
        return sha256(body).digest() + body

    @classmethod
    def unpack(cls, raw: object) -> Recording:
        """The recording in what was kept.

        Raises:
            UnusableRecording: it is not what :meth:`pack` returned.
        """
        if not isinstance(raw, bytes) or sha256(raw[_DIGEST_BYTES:]).digest() != raw[:_DIGEST_BYTES]:
            raise UnusableRecording("it is not what was kept")
        start = _DIGEST_BYTES + _LENGTH_BYTES
        end = start + int.from_bytes(raw[_DIGEST_BYTES:start], "big")
        try:
            sample_rate, channels, samples, first_byte, words = json.loads(raw[start:end])
            return cls(sample_rate, channels, samples, raw[end:], tuple(map(tuple, words)), first_byte)
        except (ValueError, TypeError):
            raise UnusableRecording("another version kept it") from None

    @property
    def transcript(self) -> list[TimedString]:
        """The words, with their times."""
        return [
            TimedString(text, NOT_GIVEN if start is None else start, NOT_GIVEN if end is None else end)
            for text, start, end in self.words
        ]

    def decode(self) -> Iterator[rtc.AudioFrame]:
        """The sound, in frames of a fiftieth of a second, ``samples`` in all.

        Raises:
            av.FFmpegError, ValueError: it cannot be decoded.
        """
        layout = "mono" if self.channels == 1 else "stereo"
        resampler = AudioResampler(format="s16", layout=layout, rate=self.sample_rate)
        left = self.samples
        with av.open(io.BytesIO(self.opus), "r", format="ogg") as stream:
            for decoded in _resampled(stream.decode(audio=0), resampler):
                count = min(decoded.samples, left)
                if count:
                    left -= count
                    data = bytes(decoded.planes[0])[: 2 * self.channels * count]
                    yield rtc.AudioFrame(data, self.sample_rate, self.channels, count)

    async def play(self) -> AsyncIterator[rtc.AudioFrame]:
        """The sound, decoded as it is asked for."""
        for frame in self.decode():
            yield frame


def _encode(sound: rtc.AudioFrame) -> bytes:
    layout = "mono" if sound.num_channels == 1 else "stereo"
    rate = sound.sample_rate if sound.sample_rate in _OPUS_RATES else 48_000
    plane = av.AudioFrame(format="s16", layout=layout, samples=sound.samples_per_channel)
    plane.planes[0].update(bytes(sound.data))
    plane.sample_rate = sound.sample_rate
    out = io.BytesIO()
    with av.open(out, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=rate)
        stream.bit_rate = _BITS_PER_SECOND * sound.num_channels
        stream.layout = layout
        for part in _resampled([plane], AudioResampler(format="s16", layout=layout, rate=rate)):
            part.pts = None
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return out.getvalue()


def _resampled(frames: Any, resampler: AudioResampler) -> Iterator[av.AudioFrame]:
    for frame in frames:
        yield from resampler.resample(frame)
    yield from resampler.resample(None)


def _word(text: str) -> Word:
    start, end = (getattr(text, name, None) for name in ("start_time", "end_time"))
    return (
        str(text),
        start if utils.is_given(start) and isinstance(start, float | int) else None,
        end if utils.is_given(end) and isinstance(end, float | int) else None,
    )
