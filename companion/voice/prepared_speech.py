"""Speech that was prepared for a text: the seam between what is said first and how it sounds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from livekit import rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.utils import http_context

from ..phrases import phrases
from ..settings import Settings
from ..speech import SessionSpeech, VoiceSpeech
from .models import make_voice


class PreparedSpeech(Protocol):
    """Keeps the speech of texts in the voice of one session. No method raises anything but ``CancelledError``."""

    def speak_as(self, agent: Agent) -> None:
        """Keep the speech as this agent speaks it. To be called while its session runs, before the other methods."""
        ...

    async def find(self, user_id: str | None, text: str) -> AsyncIterator[rtc.AudioFrame] | None:
        """Find the speech of a text.

        Args:
            user_id: whose it is; None for a phrase that is said to everybody.
            text: the text, as ``prepare`` received it.

        Returns:
            The frames of the whole speech, verified before the first is played; None where the text is to be spoken
            live.
        """
        ...

    async def prepare(
        self, user_id: str | None, text: str, wanted: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        """Speak a text, and keep it for ``find``. Does nothing where no speech can be kept.

        Args:
            user_id: as for ``find``.
            text: the text.
            wanted: whether the text may still be spoken and kept. Where the speech is deleted after this was asked, it
                is not kept.
        """
        ...


class NoSpeech:
    """Keeps nothing: every text is spoken live."""

    def speak_as(self, agent: Agent) -> None:
        """As ``PreparedSpeech.speak_as``."""

    async def find(self, user_id: str | None, text: str) -> AsyncIterator[rtc.AudioFrame] | None:
        """As ``PreparedSpeech.find``."""
        return None

    async def prepare(
        self, user_id: str | None, text: str, wanted: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        """As ``PreparedSpeech.prepare``."""


async def speak_phrases(settings: Settings) -> None:
    """Speak what everybody may hear first, once per voice and language, and keep it for all. For a worker's start."""
    voice = make_voice(settings) if settings.prepare_speech else None
    if voice is not None:
        async with http_context.open():
            for phrase in phrases(settings.language):
                await VoiceSpeech(voice).prepare(None, phrase)
            await voice.aclose()


def speech_of(session: AgentSession[Any], settings: Settings | None = None) -> PreparedSpeech:
    """The prepared speech of a session's voice. To be called before the session starts; it may outlive the session.

    Args:
        session: the session.
        settings: read from the environment where None; they may turn it off.
    """
    return SessionSpeech(session) if (settings or Settings.from_env()).prepare_speech else NoSpeech()
