"""Builds the models that listen, think and speak, as the settings choose."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from livekit.agents import NOT_GIVEN, AgentSession, inference, llm, stt, tts
from livekit.agents.voice.room_io import RoomOptions

from cache import retrieve_exception

from ..offline.llm import OfflineLLM
from ..settings import DEFAULTS, OFF, Settings

CLOSE_TIMEOUT: Final = 1.0
"""Seconds that closing models may take."""


def import_models(settings: Settings) -> None:
    """Import the plugin that :func:`make_llm`, :func:`make_voice` and :func:`make_ears` need, if any.

    To be called at program start: LiveKit lets plugins register on the main thread only. OpenAI's takes half a second
    to import.
    """
    if settings.models == "openai":
        import livekit.plugins.openai  # noqa: F401 - importing it registers it


def name_of(settings: Settings, variable: str) -> str:
    """The name of the model that a variable chooses, or else the usual one. Offline there is none."""
    named = {"COMPANION_LLM": settings.llm, "COMPANION_STT": settings.stt, "COMPANION_TTS": settings.tts}[variable]
    return named or DEFAULTS.get(settings.models, {}).get(variable, "")


def make_llm(settings: Settings) -> llm.LLM[Any]:
    """Build the language model."""
    name = name_of(settings, "COMPANION_LLM")
    if settings.models == "openai":
        from livekit.plugins import openai

        return openai.LLM(model=name, **_openai(settings))
    return inference.LLM(name) if settings.models == "inference" else OfflineLLM()


def make_voice(settings: Settings) -> tts.TTS[Any] | None:
    """Build the model that speaks. Offline, and where it is off, there is none."""
    name, voice = name_of(settings, "COMPANION_TTS"), settings.voice
    if name == OFF or settings.models == "offline":
        return None
    if settings.models == "openai":
        from livekit.plugins import openai

        options = _openai(settings) | ({"voice": voice} if voice else {})
        return openai.TTS(model=name, **options)
    return inference.TTS(name, language=settings.language, voice=voice or NOT_GIVEN)


def make_ears(settings: Settings) -> stt.STT[Any] | None:
    """Build the model that listens. Offline, and where it is off, there is none."""
    name = name_of(settings, "COMPANION_STT")
    if name == OFF or settings.models == "offline":
        return None
    if settings.models == "openai":
        from livekit.plugins import openai

        return openai.STT(model=name, language=settings.language, **_openai(settings))
    # provider/model:language says it itself, as does provider/model:multi
    return inference.STT(name, language=NOT_GIVEN if ":" in name else settings.language)


def make_session(settings: Settings, model: llm.LLM[Any]) -> tuple[AgentSession[Any], RoomOptions]:
    """Build a session that listens and speaks as the settings choose.

    Args:
        settings: the settings.
        model: the model that thinks.

    Returns:
        The session, and what it takes from the room.
    """
    ears, voice = make_ears(settings), make_voice(settings)
    detection: dict[str, Any] = {} if ears else {"vad": None, "turn_handling": {"turn_detection": None}}
    session: AgentSession[Any] = AgentSession(llm=model, stt=ears or NOT_GIVEN, tts=voice or NOT_GIVEN, **detection)
    # Without speech models the conversation is in text; an enabled audio output would swallow the greeting.
    hears, speaks = ears is not None, voice is not None
    if not hears:
        session.input.set_audio_enabled(False)
    if not speaks:
        session.output.set_audio_enabled(False)
    return session, RoomOptions(audio_input=hears, audio_output=speaks)


async def close_models(*models: llm.LLM[Any] | stt.STT[Any] | tts.TTS[Any] | None) -> None:
    """Close the connections of models, within ``CLOSE_TIMEOUT`` seconds: LiveKit's sessions do not close them.

    Args:
        models: the models; None for one that there is not.
    """
    closing = [asyncio.create_task(model.aclose(), name="close-model") for model in models if model is not None]
    if closing:
        await asyncio.wait(closing, timeout=CLOSE_TIMEOUT)
    for each in closing:
        each.cancel()
        each.add_done_callback(retrieve_exception)


def speak(session: AgentSession[Any], settings: Settings, language: str) -> None:
    """Let the models of a session listen and speak in another language.

    Args:
        session: what :func:`make_session` made.
        settings: what it was made with.
        language: the language code. A model whose name has a language keeps it.
    """
    if settings.models == "openai":
        from livekit.plugins import openai

        if isinstance(session.stt, openai.STT):
            session.stt.update_options(language=language)
        return  # its voice hears the language from the text
    if isinstance(session.stt, inference.STT) and ":" not in name_of(settings, "COMPANION_STT"):
        session.stt.update_options(language=language)
    if isinstance(session.tts, inference.TTS):
        session.tts.update_options(language=language)


def _openai(settings: Settings) -> dict[str, Any]:
    options = {"api_key": settings.openai_api_key, "base_url": settings.openai_base_url}
    return {name: value for name, value in options.items() if value}
