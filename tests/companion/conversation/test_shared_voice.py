"""A voice that shares what it speaks shares nothing of the caller of a session with a memory."""

from __future__ import annotations

import pytest
from livekit.agents import Agent, tts

from cache import get_redis_cache
from companion.runtime import Runtime
from companion.speech import CachedTTS
from tests.companion.conversation.test_attach import calling
from tests.companion.speech.toy_voice import ToyVoice

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("where", ["session", "agent", "an adapter"])
async def test_nothing_of_the_caller_is_shared(runtime: Runtime, where: str) -> None:
    await runtime.store.save_profile("ada", "Name: Ada")
    await get_redis_cache()
    voice = CachedTTS(ToyVoice(), key="hum")
    agent = Agent(instructions="kind", **({"tts": voice} if where == "agent" else {}))
    adapted = {"tts": tts.FallbackAdapter([voice])} if where == "an adapter" else None
    async with calling(agent, session={"tts": voice} if where == "session" else adapted) as call:
        await call.memory.briefed()
        assert voice.key_of("One moment, please.") is not None
        assert voice.key_of("Nice to see you, Ada.") is None  # of the profile
        assert voice.key_of("The tournament went well.") is not None
        await call.say("I have lost a tournament")
        assert voice.key_of("The tournament went well.") is None  # of what was said
        assert voice.key_of("One moment, please.") is not None
    assert voice.key_of("The tournament went well.") is not None  # the voice of another conversation
