"""Which models listen, think and speak, from the keys that are present."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from livekit.agents import inference, llm, stt, tts

from ..offline.llm import OfflineLLM
from ..settings import Settings

OPENAI_LLM = "gpt-4.1-mini"
INFERENCE_LLM = "openai/gpt-4.1-mini"
INFERENCE_STT = "deepgram/nova-3"
INFERENCE_TTS = "cartesia/sonic-3"


@dataclass(frozen=True, slots=True)
class Voice:
    """Ears and mouth.

    Attributes:
        stt: speech to text; None for a conversation in text.
        tts: text to speech; None for a conversation in text.
        session: further options for the AgentSession.
    """

    stt: stt.STT[Any] | None = None
    tts: tts.TTS[Any] | None = None
    session: dict[str, Any] = field(default_factory=dict)


def import_models(settings: Settings) -> None:
    """Import what :func:`make_llm` and :func:`make_voice` need, and only that: OpenAI's takes half a second.

    To be called as the program starts: LiveKit lets plugins register on the main thread alone.
    """
    if settings.models == "openai":
        import livekit.plugins.openai  # noqa: F401 - importing it registers it


def make_llm(settings: Settings) -> llm.LLM[Any]:
    """The model that thinks."""
    if settings.models == "openai":
        from livekit.plugins import openai

        return openai.LLM(model=OPENAI_LLM, **_openai(settings))
    if settings.models == "inference":
        return inference.LLM(INFERENCE_LLM)
    return OfflineLLM()


def make_voice(settings: Settings) -> Voice:
    """The models that listen and speak. Offline there are none: the conversation is in text."""
    if settings.models == "openai":
        from livekit.plugins import openai

        options = _openai(settings)
        return Voice(openai.STT(language=settings.language, **options), openai.TTS(**options))
    if settings.models == "inference":
        return Voice(
            inference.STT(INFERENCE_STT, language=settings.language),
            inference.TTS(INFERENCE_TTS, language=settings.language),
        )
    return Voice(session={"vad": None, "turn_handling": {"turn_detection": None}})


def _openai(settings: Settings) -> dict[str, Any]:
    options = {"api_key": settings.openai_api_key, "base_url": settings.openai_base_url}
    return {name: value for name, value in options.items() if value}
