"""The speech of what is said first, in the voice of one session: spoken when a conversation ends, played at a start.

``session.say(text, audio=...)`` plays frames as they are, past the agent's ``tts_node`` and the session's text
transforms. So both are applied when the speech is prepared; a recording is named by the transformed text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any, Final

from livekit import rtc
from livekit.agents import Agent, AgentSession, ModelSettings, tts
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS
from livekit.agents.utils import is_given
from livekit.agents.voice.transcription import text_transforms

from cache import get_redis_cache, keys

from .cached_tts import CachedTTS
from .plain_node import has_own_sound
from .recordings import find, record
from .voice_key import speech_id, voice_key

logger = logging.getLogger("companion")
TIMEOUT: Final = 4.0
"""Seconds to prepare the speech of one text: the end of a conversation has seven in all."""
FIND_TIMEOUT: Final = 0.5
"""Seconds to find it: a caller waits, whose greeting is spoken live then."""
_ACTIVITY: Final = "_activity"  # the attribute of LiveKit's agents, which is None where their session is closed
MAX_CHARACTERS: Final = 600
"""Characters of the longest text whose speech is prepared."""


class VoiceSpeech:
    """Keeps the speech of texts in one voice. No method raises anything but ``CancelledError``.

    Args:
        voice: the voice; None keeps nothing.
    """

    def __init__(self, voice: tts.TTS[Any] | None) -> None:
        self._voice = voice

    async def find(self, user_id: str | None, text: str) -> AsyncIterator[rtc.AudioFrame] | None:
        """The frames of the speech of a text, verified; None where it is to be spoken live.

        Args:
            user_id: whose it is; None for a phrase that is said to everybody.
            text: the text, as :meth:`prepare` received it.
        """
        try:
            async with asyncio.timeout(FIND_TIMEOUT):
                if (key := await self._key(user_id, await self._transformed(text))) is None:
                    return None
                recording = await find(key)
        except Exception as problem:  # Redis is late, or a text transform of the program failed: it is spoken live
            logger.warning("the prepared speech could not be found (%s)", type(problem).__name__)
            return None
        return None if recording is None else recording.play()

    def speak_as(self, agent: Agent) -> None:
        """The voice is the same for all agents."""

    async def prepare(
        self, user_id: str | None, text: str, wanted: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        """Speak a text, and keep it for :meth:`find`; within ``TIMEOUT`` seconds, and not where Redis is away.

        Args:
            user_id: as for :meth:`find`.
            text: the text.
            wanted: whether the text may still be spoken and kept. It is asked under the lease of the speech, which a
                deletion takes away: so nothing is kept of what was deleted before or after.
        """

        async def speak() -> AsyncIterator[rtc.AudioFrame]:
            if wanted is None or await wanted():
                async for frame in self._speak(spoken):
                    yield frame

        try:
            async with asyncio.timeout(TIMEOUT):
                spoken = await self._transformed(text)
                key, cache = await self._key(user_id, spoken), await get_redis_cache()
                if key is None or not cache.connected:
                    return
                recording = await record(key, speak, ahead=True)
                # It lives as long as it is needed. What everybody hears may be in the memory of this process alone.
                if not await cache.expire(key, key.ttl or keys.SPEECH_TTL) and recording and user_id is None:
                    await cache.set(key, recording.pack(), key.ttl)
        except Exception as problem:  # whatever a voice's client raises
            logger.warning("the speech of a greeting could not be prepared (%s)", type(problem).__name__)

    async def _key(self, user_id: str | None, spoken: str) -> keys.Key | None:
        name = self._name()
        if name is None or not spoken.strip() or len(spoken) > MAX_CHARACTERS:
            return None
        id_ = speech_id(name, spoken)
        return keys.shared_speech(id_) if user_id is None else keys.speech(user_id, id_)

    def _name(self) -> str | None:
        if isinstance(self._voice, CachedTTS):
            return self._voice.voice_key
        return None if self._voice is None else voice_key(self._voice)

    async def _transformed(self, text: str) -> str:
        return text

    async def _speak(self, spoken: str) -> AsyncIterator[rtc.AudioFrame]:
        voice = self._voice.voice if isinstance(self._voice, CachedTTS) else self._voice
        if voice is not None:
            async with voice.synthesize(spoken, conn_options=DEFAULT_API_CONNECT_OPTIONS) as stream:
                async for event in stream:
                    yield event.frame


class SessionSpeech(VoiceSpeech):
    """Keeps the speech of texts as one session speaks them.

    Args:
        session: the session. Nothing is kept until :meth:`speak_as`, nor where its conversation is in text.
    """

    def __init__(self, session: AgentSession[Any]) -> None:
        super().__init__(None)
        self._session = session
        self._agent: Agent | None = None

    def speak_as(self, agent: Agent) -> None:
        """Take the voice of the agent that greets: it may have another one than its session."""
        self._agent = agent
        voice = agent.tts if is_given(agent.tts) else self._session.tts
        self._voice = None if self._session.output.audio is None else voice

    def _name(self) -> str | None:
        name = super()._name() if self._session.output.audio_enabled else None
        if name is None or self._agent is None or not has_own_sound(self._agent):
            return name
        agent = type(self._agent)
        return f"{name} {agent.__module__}.{agent.__qualname__}"

    async def _transformed(self, text: str) -> str:
        transforms = self._session.options.tts_text_transforms
        if not transforms:
            return text
        # LiveKit has no public way to apply those that have a name only.
        return "".join([piece async for piece in text_transforms._apply_text_transforms(_stream(text), transforms)])

    async def _speak(self, spoken: str) -> AsyncIterator[rtc.AudioFrame]:
        agent = self._agent
        if agent is None or not has_own_sound(agent):
            async for frame in super()._speak(spoken):
                yield frame
            return
        stand_in = None
        if agent._activity is None and self._voice is not None:  # its session is closed
            stand_in = _StandInActivity(self._session, agent, self._voice)
            setattr(agent, _ACTIVITY, stand_in)
        try:
            node: Any = agent.tts_node(_stream(spoken), ModelSettings())
            frames: AsyncIterable[rtc.AudioFrame] | None = await node if asyncio.iscoroutine(node) else node
            if frames is not None:
                async for frame in frames:
                    yield frame
        finally:
            if stand_in is not None and getattr(agent, _ACTIVITY) is stand_in:
                setattr(agent, _ACTIVITY, None)


class _StandInActivity:
    """The activity of an agent whose session is closed, as far as a ``tts_node`` asks for it.

    LiveKit has no public way to run a node without a session.
    """

    def __init__(self, session: AgentSession[Any], agent: Agent, voice: tts.TTS[Any]) -> None:
        self.session, self.agent, self.tts = session, agent, voice

    def _resolve_expressive_options(self) -> None:
        return None


async def _stream(text: str) -> AsyncIterator[str]:
    yield text
