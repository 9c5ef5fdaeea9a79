"""The speech of a person's greeting is theirs: it is kept for them alone, while its text is right."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import ref

import pytest
from livekit.agents import Agent, AgentSession

from cache import get_redis_cache
from companion import Caller, attach, save_user_profile_async, use_caller
from companion.conversation.opening.next_opening import prepare_opening
from companion.conversation.opening.prompt import GreetingPrompt
from companion.memory.erasure import erase_user
from companion.memory.forgetting import forget_fact_async
from companion.runtime import Runtime, acquire_runtime
from companion.speech import CachedTTS, SessionSpeech, VoiceSpeech, keep_private, private_words
from companion.speech.shareable import KnownWords
from companion.store import Opening, Turn
from companion.voice.prepared_speech import NoSpeech
from tests.companion.scripted import ScriptedLLM
from tests.companion.speech.toy_voice import Speaker, ToyVoice
from tests.contract.livekit.livekit_stand_in import PlayedLLM
from tests.lag import within
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration
PROMPT = GreetingPrompt("Be kind.", "Greet them.", "en")
TEXT = "Welcome back, Ada! How is the chess?"


@pytest.fixture
def model() -> ScriptedLLM:
    """Sees no thread worth picking up, and writes the greeting."""
    return ScriptedLLM(TEXT)


async def erase() -> None:
    await erase_user("ada")


async def forget() -> None:
    with use_caller(Caller("ada")):
        await forget_fact_async("chess")


async def known(runtime: Runtime) -> None:
    """Ada was here an hour ago, and how to open with her is decided: the model is asked for the text alone."""
    await runtime.store.add_turn("ada", Turn("user", "I play chess", datetime.now(UTC) - timedelta(hours=1), "c1"))
    context = await runtime.store.context("ada")
    plan = {"opening": "fresh_start", "last_seen": context.turns[-1].at.isoformat(), "topic": "", "last_words": ""}
    opening = Opening(context.version, plan, None, PROMPT.hash, datetime.now(UTC))
    await runtime.store.save_opening("ada", opening)


@pytest.mark.parametrize("change", [erase, forget])
@pytest.mark.parametrize("speaking", [True, False])
async def test_nothing_is_kept_of_what_is_deleted_meanwhile(
    runtime: Runtime, redis_server: RedisServer, change: Callable[[], Awaitable[None]], speaking: bool
) -> None:
    """While the voice speaks, or after the text was stored and before the voice is asked."""
    await get_redis_cache()
    toy = ToyVoice(pause=0.3)

    class Late(VoiceSpeech):
        async def prepare(self, *args: Any) -> None:
            if not speaking:
                await change()
            await super().prepare(*args)

    with use_caller(Caller("ada")):
        await save_user_profile_async("Plays chess.")
        await known(runtime)
        preparing = asyncio.create_task(prepare_opening("ada", PROMPT, Late(CachedTTS(toy, key="hum"))))
    if speaking:
        await until(lambda: bool(toy.spoken))
        await change()
    await preparing
    assert toy.spoken == ([TEXT] if speaking else [])
    assert redis_server.cli("KEYS", "*speech:*") == []


async def test_a_greeting_that_is_spoken_live_is_not_shared(runtime: Runtime, redis_server: RedisServer) -> None:
    """Also where neither profile nor summary is known: the greeting itself is of its person."""
    await get_redis_cache()
    await known(runtime)
    with use_caller(Caller("ada")):
        await prepare_opening("ada", PROMPT, NoSpeech())
    toy = ToyVoice()
    session: AgentSession[Any] = AgentSession(
        llm=PlayedLLM(lambda _: ""), tts=CachedTTS(toy, key="hum"), vad=None, turn_handling={"turn_detection": None}
    )
    session.output.audio = Speaker()
    acquire_runtime()  # the test's, which it closes itself
    memory = await attach(session, caller=Caller("ada"))
    async with session:
        await session.start(Agent(instructions=PROMPT.persona))
        await (await memory.greet(PROMPT.instructions))  # type: ignore[misc]  # it greets
    assert toy.spoken == [TEXT]
    assert redis_server.cli("KEYS", "speech:*") == []
    await memory.aclose()


async def test_in_text_no_voice_is_asked_and_another_agent_has_its_own(runtime: Runtime) -> None:
    await get_redis_cache()
    first, second = (CachedTTS(ToyVoice(), key=name) for name in ("first", "second"))
    for speaker, spoken in ((None, []), (Speaker(), [TEXT])):
        session: AgentSession[Any] = AgentSession(tts=first, vad=None, turn_handling={"turn_detection": None})
        session.output.audio = speaker
        speech = SessionSpeech(session)
        async with session:
            await session.start(Agent(instructions="First."))
            session.update_agent(greeting := Agent(instructions="Second.", tts=second))
            await until(lambda: session.current_agent is greeting)  # noqa: B023  # awaited within the round
            speech.speak_as(greeting)
        await speech.prepare("1", TEXT)
        assert first.voice.spoken == []  # type: ignore[attr-defined]  # the toy's own
        assert second.voice.spoken == spoken  # type: ignore[attr-defined]  # the toy's own


async def test_a_redis_that_is_late_delays_no_start_for_long(runtime: Runtime, redis_server: RedisServer) -> None:
    await get_redis_cache()
    speech = VoiceSpeech(CachedTTS(ToyVoice(), key="hum"))
    await speech.prepare("1", TEXT)
    redis_server.pause()
    try:
        async with within(1.9):  # the cache alone would take two seconds
            assert await speech.find("1", TEXT) is None
    finally:
        redis_server.resume()


async def test_nothing_is_held_of_a_session_that_has_ended() -> None:
    def known() -> str:
        return "Name: Ada"

    session: AgentSession[Any] = AgentSession()
    keep_private(session, known)
    held = ref(known)
    session.emit("close", None)
    del session, known
    gc.collect()
    assert held() is None


async def test_the_words_of_a_long_history_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence waits for it. What is edited or taken away is read as it is now."""
    read: list[str] = []

    class Counted(KnownWords):
        def __init__(self, text: str) -> None:
            read.append(text)
            super().__init__(text)

    monkeypatch.setattr(private_words, "KnownWords", Counted)
    voice = CachedTTS(ToyVoice(), key="hum")
    session: AgentSession[Any] = AgentSession()
    keep_private(session, lambda: "Name: Ada")
    said = [session.history.add_message(role="user", content=text) for text in ("I play chess.", "I have a cat.")]
    for _ in range(3):
        assert voice.key_of("How is Ada's chess?") is None
    assert sorted(read) == ["I have a cat.", "I play chess.", "Name: Ada"]
    said[0].content = ["I play go."]
    assert voice.key_of("How is the chess?") is not None
    assert read[3:] == ["I play go."]
    assert voice.key_of("How is the cat?") is None
    session.emit("close", None)
    assert voice.key_of("How is the cat?") is not None
