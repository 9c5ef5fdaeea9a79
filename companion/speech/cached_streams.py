"""The streams of a ``CachedTTS``: what the framework reads its speech from.

The other voice retries, counts its usage and reports its errors; a stream around it does none of that again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, ClassVar, Final

from livekit import rtc
from livekit.agents import APIConnectOptions, tts, utils
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT, TimedString

_PCM: Final = "audio/pcm"


class Emitter:
    """Passes frames and their words on to the framework's emitter.

    Args:
        emitter: the framework's.
        voice: whose speech it is.
        stream: whether it is for a stream of text.
    """

    def __init__(self, emitter: tts.AudioEmitter, voice: tts.TTS[Any], *, stream: bool) -> None:
        self._emitter = emitter
        emitter.initialize(
            request_id=utils.shortuuid(),
            sample_rate=voice.sample_rate,
            num_channels=voice.num_channels,
            mime_type=_PCM,
            stream=stream,
        )
        if stream:
            emitter.start_segment(segment_id=utils.shortuuid())

    def frame(self, frame: rtc.AudioFrame) -> None:
        """Pass a frame on."""
        self.words(frame.userdata.get(USERDATA_TIMED_TRANSCRIPT) or [])
        self._emitter.push_frame(frame)

    def words(self, words: list[TimedString]) -> None:
        """Pass words on, with the next frame."""
        if words:
            self._emitter.push_timed_transcript(words)


Say = Callable[[str, Emitter, APIConnectOptions], Awaitable[None]]
"""Gives an emitter the speech of a whole text."""


class CachedChunkedStream(tts.ChunkedStream):
    """The speech of one text.

    Args:
        tts: the voice.
        say: gives the speech.
        input_text: the text.
        conn_options: for the other voice.
    """

    _tts_request_span_name: ClassVar[str] = "tts_cached"
    _tts_attempt_span_name: ClassVar[str | None] = None

    def __init__(self, *, tts: tts.TTS[Any], say: Say, input_text: str, conn_options: APIConnectOptions) -> None:
        super().__init__(tts=tts, input_text=input_text, conn_options=_once(conn_options))
        self._say, self._inner_options = say, conn_options

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        emitter = Emitter(output_emitter, self._tts, stream=False)
        await self._say(self._input_text, emitter, self._inner_options)
        output_emitter.flush()

    async def _metrics_monitor_task(self, event_aiter: AsyncIterable[tts.SynthesizedAudio]) -> None:
        await _drain(event_aiter)


class CachedSynthesizeStream(tts.SynthesizeStream):
    """The speech of a stream of text.

    The first piece is held back until the next one, or the end: only then it shows whether it is the whole text. No
    voice would have begun earlier, as it takes a whole sentence to begin.

    Args:
        tts: the voice.
        say: gives the speech of a text that comes whole.
        inner: the other voice, which speaks a text that comes in pieces.
        conn_options: for the other voice.
    """

    _tts_request_span_name: ClassVar[str] = "tts_cached"
    _tts_attempt_span_name: ClassVar[str | None] = None

    def __init__(self, *, tts: tts.TTS[Any], say: Say, inner: tts.TTS[Any], conn_options: APIConnectOptions) -> None:
        super().__init__(tts=tts, conn_options=_once(conn_options))
        self._say, self._inner, self._inner_options = say, inner, conn_options

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        emitter = Emitter(output_emitter, self._tts, stream=True)
        pieces: list[str] = []
        async for piece in self._input_ch:
            if isinstance(piece, str):
                pieces.append(piece)
            if len(pieces) > 1 or (pieces and not isinstance(piece, str)):
                break
        if len(pieces) < 2:
            await self._say_whole("".join(pieces), emitter)
        else:
            await self._pass_on(pieces, emitter)
        output_emitter.flush()

    async def _say_whole(self, text: str, emitter: Emitter) -> None:
        if text.strip():
            self._mark_started()
            await self._say(text, emitter, self._inner_options)

    async def _pass_on(self, pieces: list[str], emitter: Emitter) -> None:
        async with self._inner.stream(conn_options=self._inner_options) as inner:

            async def forward() -> None:
                for piece in pieces:
                    inner.push_text(piece)
                async for late in self._input_ch:
                    if isinstance(late, str):
                        inner.push_text(late)
                    else:
                        inner.flush()
                inner.end_input()

            self._mark_started()
            forwarding = asyncio.create_task(forward(), name="cached-tts-forward")
            try:
                async for event in inner:
                    emitter.frame(event.frame)
            finally:
                await utils.aio.cancel_and_wait(forwarding)

    async def _metrics_monitor_task(self, event_aiter: AsyncIterable[tts.SynthesizedAudio]) -> None:
        await _drain(event_aiter)


def _once(conn_options: APIConnectOptions) -> APIConnectOptions:
    return APIConnectOptions(max_retry=0, timeout=conn_options.timeout)


async def _drain(events: AsyncIterable[tts.SynthesizedAudio]) -> None:
    async for _ in events:
        pass
