"""Asks each model one thing before a console or a worker starts: does the provider take the name, the key, the address?

The models are those of a conversation, with their own clients, so that what is refused here would be refused there. A
refusal is one line: the variable, the provider's reason, and what to do. What may be over in a minute is a warning.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from livekit import rtc
from livekit.agents import APIConnectOptions, llm, stt, tts
from livekit.agents.utils import http_context

from ...settings import OFF, Settings
from ..models import make_ears, make_llm, make_voice, name_of
from .model_list import known_models
from .refusal import Refusal, Server, refusal

CHECK: Final = "Say: ready"
"""What the models are asked, and what the voice says."""
CHECK_TIMEOUT: Final = 10.0
"""Seconds that a model has: one that is only now loaded from a disk may take longer, and is not wrong."""
EARS_TIMEOUT: Final = 1.0
"""Seconds for an error of a stream of speech, which answers silence with silence."""
_ONCE: Final = APIConnectOptions(max_retry=0, timeout=CHECK_TIMEOUT)
_SILENCE: Final = 0.5  # seconds
_RATE: Final = 24_000


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a model.

    Attributes:
        line: what and why, and what to do.
        lasting: whether it stays so until a variable, or something at the provider, is changed.
        unreachable: whether there was no server at the address.
    """

    line: str
    lasting: bool
    unreachable: bool = False


class NothingSaid(Exception):
    """The model's answer was empty."""


def check_at_start(settings: Settings, arguments: Sequence[str]) -> None:
    """Ask the models, and print what is wrong.

    Args:
        settings: the settings.
        arguments: the command line, ``sys.argv``. Unless it is a console in text, those that listen and speak are
            asked as well.

    Raises:
        SystemExit: something is wrong that stays so. In production a server that does not answer is no reason to end:
            it may be there before the first call.
    """
    in_text = arguments[1] == "console" and "--text" in arguments
    found = asyncio.run(check_models(settings, speech=not in_text))
    ending = [one for one in found if one.lasting and not (one.unreachable and arguments[1] == "start")]
    for one in found:
        print(f"companion: {one.line}", file=sys.stderr)
    if ending:
        raise SystemExit(1)


async def check_models(settings: Settings, *, speech: bool) -> list[Finding]:
    """Ask the models that the settings choose.

    Args:
        settings: the settings.
        speech: ask those that listen and speak as well.

    Returns:
        What is wrong, the model that thinks first; of what is wrong with the server, only once.
    """
    if settings.models == "offline":
        return []
    asked: dict[str, Callable[[], Awaitable[None]]] = {"COMPANION_LLM": lambda: _ask_llm(settings)}
    if speech:
        if settings.stt != OFF:
            asked["COMPANION_STT"] = lambda: _ask_ears(settings)
        if settings.tts != OFF:
            asked["COMPANION_TTS"] = lambda: _ask_voice(settings)
    async with http_context.open():
        found = await asyncio.gather(*(_refusal(settings, name, ask) for name, ask in asked.items()))
    if found[0] is None:  # the address is right: what it does not have is a model
        found = [one and replace(one, is_the_model=one.is_the_model or one.cause == "address") for one in found]
    once: dict[str, Finding] = {}
    for one in found:
        if one is not None:
            once.setdefault(one.subject or one.line, Finding(one.line, one.lasting, one.unreachable))
    return list(once.values())


async def _refusal(settings: Settings, variable: str, ask: Callable[[], Awaitable[None]]) -> Refusal | None:
    """What is wrong with a model, and the models that its server lists where its name may be the reason."""
    server = Server(settings.models, settings.openai_base_url, settings.openai_api_key or "")
    model = name_of(settings, variable)
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await ask()
    except TimeoutError:
        return Refusal(variable, model, server, f"no answer within {CHECK_TIMEOUT:.0f} seconds", "slow")
    except Exception as problem:  # whatever a model's client raises
        found = refusal(problem, variable, model, server, settings.voice if variable == "COMPANION_TTS" else None)
        known = await known_models(server, model) if found.may_be_the_model else None
        if known is None:
            return found
        if found.cause == "empty":
            return None  # a model that has nothing to say
        return replace(found, is_the_model=found.is_the_model or not known.has, known=known.names)
    return None


async def _ask_llm(settings: Settings) -> None:
    model = make_llm(settings)
    try:
        question = llm.ChatContext.empty()
        question.add_message(role="user", content=CHECK)
        async with model.chat(chat_ctx=question, conn_options=_ONCE) as stream:
            if await anext(aiter(stream), None) is None:
                raise NothingSaid("an empty answer")
    finally:
        await _close(model)


async def _ask_voice(settings: Settings) -> None:
    voice = make_voice(settings)
    assert voice is not None  # it is not off
    try:
        async with voice.synthesize(CHECK, conn_options=_ONCE) as stream:
            await anext(aiter(stream), None)
    finally:
        await _close(voice)


async def _ask_ears(settings: Settings) -> None:
    ears = make_ears(settings)
    assert ears is not None  # they are not off
    silence = rtc.AudioFrame.create(_RATE, 1, int(_RATE * _SILENCE))
    try:
        if not ears.capabilities.streaming:
            await ears.recognize([silence], conn_options=_ONCE)
            return
        async with ears.stream(conn_options=_ONCE) as stream:
            stream.push_frame(silence)
            with suppress(TimeoutError):  # it hears nothing
                async with asyncio.timeout(EARS_TIMEOUT):
                    await anext(aiter(stream), None)
    finally:
        await _close(ears)


async def _close(model: llm.LLM[Any] | stt.STT[Any] | tts.TTS[Any]) -> None:
    with suppress(Exception):  # it has answered, or failed: how it ends is of no interest
        await model.aclose()
