"""Names a voice, so that a recording in one voice is never played for another.

LiveKit has no attribute that says how a voice is set up. So the set-up is read of the two plugins that the companion
uses and its tests know; any other voice is named by the program (``CachedTTS(voice, key=...)``).
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, is_dataclass
from hashlib import sha256
from typing import Any, Final

from livekit.agents import tts
from livekit.agents.utils import is_given

logger = logging.getLogger("companion")
_KNOWN: Final = ("livekit.plugins.openai.tts.TTS", "livekit.agents.inference.tts.TTS")
_NO_SOUND: Final = frozenset({"api_key", "api_secret", "conn_options", "fallback"})
"""Options that do not change how a voice sounds; ``fallback`` is looked at by itself."""
_warned: set[str] = set()


def voice_key(voice: tts.TTS[Any], named: str | None = None) -> str | None:
    """The name of a voice as it is set up now; None where its speech cannot be kept, which is logged once.

    Args:
        voice: the voice.
        named: the name that the program gives it.
    """
    inner: object = voice
    while isinstance(inner, tts.StreamAdapter):
        inner = inner._wrapped_tts  # LiveKit has no public way to ask
    kind = f"{type(inner).__module__}.{type(inner).__qualname__}"
    options = getattr(inner, "_opts", None)
    fallback = getattr(options, "fallback", None)
    if isinstance(inner, tts.FallbackAdapter) or (is_given(fallback) and fallback):
        _warn_once(kind, "another voice may stand in for it")
        return None
    form = [kind, voice.sample_rate, voice.num_channels]
    if named is not None:
        return json.dumps([*form, named])
    if kind not in _KNOWN or not is_dataclass(options) or isinstance(options, type):
        _warn_once(kind, "how it is set up is not known: name it, CachedTTS(voice, key=...)")
        return None
    settings = {name: repr(value) for name, value in asdict(options).items() if name not in _NO_SOUND}
    return json.dumps([*form, voice.provider, _address(inner), sorted(settings.items())])


def _address(voice: object) -> str:
    """A hash of what OpenAI's client adds to each request: behind one host, a path or a header may choose the voice."""
    client = getattr(voice, "_client", None)  # LiveKit has no public way to ask
    if client is None:
        return ""
    added = [
        str(client.base_url),
        *(sorted(map(repr, more.items())) for more in (client._custom_query, client._custom_headers)),
    ]
    return sha256(json.dumps(added).encode()).hexdigest()[:16]  # it may hold a credential


def speech_id(voice: str, text: str) -> str:
    """The id of the speech of a text in a voice, for a key."""
    return sha256(json.dumps([voice, text]).encode()).hexdigest()[:40]


def _warn_once(kind: str, why: str) -> None:
    if kind not in _warned:
        _warned.add(kind)
        logger.warning("The speech of the voice %s is not kept: %s.", kind, why)
