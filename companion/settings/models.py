"""Which models listen, think and speak: chosen by name, or else by the keys that are there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, cast
from urllib.parse import urlsplit

from cache import CacheConfigError

from .extras import require

ModelChoice = Literal["openai", "inference", "offline"]
NAMES: Final = ("COMPANION_LLM", "COMPANION_STT", "COMPANION_TTS")
OFF: Final = "off"
"""What ``COMPANION_STT`` and ``COMPANION_TTS`` may be: no such model, so that the conversation is in text."""
_LIVEKIT: Final = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
_INFERENCE: Final = re.compile(r"[A-Za-z0-9._-]+/[^\s:]+(?::[^\s:]+)?")
DEFAULTS: Final[dict[str, dict[str, str]]] = {
    "openai": {
        "COMPANION_LLM": "gpt-4.1-mini",
        "COMPANION_STT": "gpt-4o-mini-transcribe",
        "COMPANION_TTS": "gpt-4o-mini-tts",
    },
    "inference": {
        "COMPANION_LLM": "openai/gpt-4.1-mini",
        "COMPANION_STT": "deepgram/nova-3",
        "COMPANION_TTS": "cartesia/sonic-3",
    },
}
"""The models that are used where none is named."""


def choose_models(env: Mapping[str, str]) -> ModelChoice:
    """Which models are meant: what ``COMPANION_MODELS`` says, else what fits the names and keys that are set.

    Args:
        env: the texts of the variables.

    Raises:
        CacheConfigError: what is chosen lacks a variable, or a name is none that it could have.
    """
    explicit = env.get("COMPANION_MODELS", "").lower()
    if explicit not in ("", "openai", "inference", "offline"):
        raise CacheConfigError(f"COMPANION_MODELS must be openai, inference or offline, not {explicit[:20]!r}.")
    chosen = cast(ModelChoice, explicit) if explicit else _by_what_is_set(env)
    if env.get("COMPANION_LLM", "").lower() == OFF:
        raise CacheConfigError("COMPANION_LLM cannot be off: to talk without a model, set COMPANION_MODELS=offline.")
    if chosen == "openai":
        _check_openai(env)
    elif chosen == "inference":
        _check_inference(env)
    elif not explicit and (named := [name for name in (*NAMES, "COMPANION_VOICE") if _given(env, name)]):
        raise CacheConfigError(
            f"{named[0]} is set, but no server for it: set OPENAI_API_KEY, or OPENAI_BASE_URL of a server that speaks "
            "OpenAI's protocol, or LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET of a LiveKit Cloud project."
        )
    return chosen


def checked_base_url(text: str) -> str:
    """``OPENAI_BASE_URL`` without a slash at its end.

    Raises:
        CacheConfigError: it is no address of an API.
    """
    url = text.rstrip("/")
    if not host_of(url) or any(char.isspace() for char in url) or urlsplit(url).scheme not in ("http", "https"):
        raise CacheConfigError(
            "OPENAI_BASE_URL must be an address with http:// or https:// and a host, such as http://localhost:11434/v1."
        )
    if re.search(r"/(?:chat/completions|completions|models|audio/\w+|responses)$", url):
        raise CacheConfigError("OPENAI_BASE_URL must end before the name of a function, such as at /v1.")
    return url


def host_of(url: str) -> str:
    """The host of a URL; empty if there is none."""
    try:
        parts = urlsplit(url)
        return "" if parts.port == 0 else parts.hostname or ""
    except ValueError:
        return ""


def _given(env: Mapping[str, str], name: str) -> str:
    text = env.get(name, "")
    return "" if text.lower() == OFF else text


def _by_what_is_set(env: Mapping[str, str]) -> ModelChoice:
    if env.get("OPENAI_BASE_URL"):
        return "openai"
    if any("/" in _given(env, name) for name in NAMES):
        return "inference"  # OpenAI's own models have no such names
    if env.get("OPENAI_API_KEY"):
        return "openai"
    # A self-hosted LiveKit server has no Inference, so only a Cloud address chooses it.
    cloud = host_of(env.get("LIVEKIT_URL", "")).endswith(".livekit.cloud")
    return "inference" if cloud and all(env.get(name) for name in _LIVEKIT) else "offline"


def _check_openai(env: Mapping[str, str]) -> None:
    url = env.get("OPENAI_BASE_URL", "")
    host = host_of(url) if url else "api.openai.com"
    if not env.get("OPENAI_API_KEY") and (host == "openai.com" or host.endswith(".openai.com")):
        raise CacheConfigError(
            "COMPANION_MODELS=openai needs OPENAI_API_KEY; a local server behind OPENAI_BASE_URL may need none."
        )
    if not url and (name := next((name for name in NAMES if "/" in _given(env, name)), None)):
        raise CacheConfigError(
            f"{name} is the name of a model of LiveKit Inference, and COMPANION_MODELS is openai: write its name "
            "without the provider, or set COMPANION_MODELS=inference."
        )
    require("livekit.plugins.openai", "openai", "COMPANION_MODELS is openai, or OPENAI_API_KEY is set")


def _check_inference(env: Mapping[str, str]) -> None:
    missing = [name for name in _LIVEKIT if not env.get(name)]
    if missing:
        reason = "COMPANION_MODELS=inference" if env.get("COMPANION_MODELS") else "a model named provider/model"
        raise CacheConfigError(f"{reason} needs {', '.join(missing)} of a LiveKit Cloud project.")
    for name, usual in DEFAULTS["inference"].items():
        if (text := _given(env, name)) and not _INFERENCE.fullmatch(text):
            raise CacheConfigError(
                f"{name} must be provider/model for LiveKit Inference, such as {usual}; for OpenAI's own "
                "models set OPENAI_API_KEY and COMPANION_MODELS=openai."
            )
