"""Builds the models that listen, think and speak, as the settings choose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from livekit.agents import NOT_GIVEN, AgentSession, inference, llm, stt, tts
from livekit.agents.voice.room_io import RoomOptions

from ..offline.llm import OfflineLLM
from ..settings import Settings

OPENAI_LLM = "gpt-4.1-mini"
INFERENCE_LLM = "openai/gpt-4.1-mini"
INFERENCE_STT = "deepgram/nova-3"
INFERENCE_TTS = "cartesia/sonic-3"


@dataclass(frozen=True, slots=True)
class SpeechModels:
    """The models that listen and speak.

    Attributes:
        stt: speech to text; None for a conversation in text.
        tts: text to speech; None for a conversation in text.
        session_options: further options for the AgentSession.
    """

    stt: stt.STT[Any] | None = None
    tts: tts.TTS[Any] | None = None
    session_options: dict[str, Any] = field(default_factory=dict)


def import_models(settings: Settings) -> None:
    """Import the plugin that :func:`make_llm` and :func:`make_speech_models` need, if any.

    To be called at program start: LiveKit lets plugins register on the main thread only. OpenAI's takes half a second
    to import.
    """
    if settings.models == "openai":
        import livekit.plugins.openai  # noqa: F401 - importing it registers it


def make_llm(settings: Settings) -> llm.LLM[Any]:
    """Build the language model."""
    if settings.models == "openai":
        from livekit.plugins import openai

        return openai.LLM(model=OPENAI_LLM, **_openai(settings))
    if settings.models == "inference":
        return inference.LLM(INFERENCE_LLM)
    return OfflineLLM()


def make_voice(settings: Settings) -> tts.TTS[Any] | None:
    """Build the model that speaks. Offline there is none."""
    if settings.models == "openai":
        from livekit.plugins import openai

        return openai.TTS(**_openai(settings))
    return inference.TTS(INFERENCE_TTS, language=settings.language) if settings.models == "inference" else None


def make_speech_models(settings: Settings) -> SpeechModels:
    """Build the models that listen and speak. Offline there are none: the conversation is in text."""
    if settings.models == "openai":
        from livekit.plugins import openai

        return SpeechModels(openai.STT(language=settings.language, **_openai(settings)), make_voice(settings))
    if settings.models == "inference":
        return SpeechModels(inference.STT(INFERENCE_STT, language=settings.language), make_voice(settings))
    return SpeechModels(session_options={"vad": None, "turn_handling": {"turn_detection": None}})


def make_session(settings: Settings, model: llm.LLM[Any]) -> tuple[AgentSession[Any], RoomOptions]:
    """Build a session that listens and speaks as the settings choose.

    Args:
        settings: the settings.
        model: the model that thinks.

    Returns:
        The session, and what it takes from the room.
    """
    speech = make_speech_models(settings)
    session: AgentSession[Any] = AgentSession(
        llm=model, stt=speech.stt or NOT_GIVEN, tts=speech.tts or NOT_GIVEN, **speech.session_options
    )
    # Without speech models the conversation is in text; an enabled audio output would swallow the greeting.
    hears, speaks = speech.stt is not None, speech.tts is not None
    if not hears:
        session.input.set_audio_enabled(False)
    if not speaks:
        session.output.set_audio_enabled(False)
    return session, RoomOptions(audio_input=hears, audio_output=speaks)


def _openai(settings: Settings) -> dict[str, Any]:
    options = {"api_key": settings.openai_api_key, "base_url": settings.openai_base_url}
    return {name: value for name, value in options.items() if value}
