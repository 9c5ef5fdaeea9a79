"""A conversation is in its caller's language: what the metadata says, else what is remembered, else the usual one."""

from __future__ import annotations

from typing import Any

import pytest
from livekit import rtc
from livekit.agents import AgentSession

from companion.conversation.session_memory import SessionMemory
from companion.runtime import get_runtime
from companion.settings import Settings
from companion.voice.models import make_ears, make_voice, speak
from tests.agent.test_agent import entrypoint, job
from tests.real.models.openai_server import OpenAIServer
from tests.wait import until

pytestmark = pytest.mark.integration
__all__ = ["entrypoint"]


def memory_of(session: AgentSession[Any]) -> SessionMemory:
    memory = session.userdata
    assert isinstance(memory, SessionMemory)
    return memory


def instructions(session: AgentSession[Any]) -> str:
    return str(session.current_agent.instructions)


async def test_metadata_names_it_and_it_is_remembered(entrypoint: Any) -> None:
    async with job(entrypoint, {"user_id": "ada", "language": "DE"}, identity="ada") as talk:
        memory = memory_of(talk.session)
        assert memory.language == "de"
        assert 'the code "de"' in instructions(talk.session)
        await talk.session.run(user_input="hello")
    async with job(entrypoint, {"user_id": "ada"}, identity="ada") as talk:
        memory = memory_of(talk.session)
        await until(lambda: memory.language == "de")
        await talk.session.run(user_input="hello again")
        assert 'the code "de"' in instructions(talk.session)
    async with job(entrypoint, {"user_id": "ada", "language": "fr"}, identity="ada") as talk:
        assert memory_of(talk.session).language == "fr"
    async with job(entrypoint, {"user_id": "bea"}, identity="bea") as talk:
        assert memory_of(talk.session).language == "en", "it is one person's"


async def test_a_profile_says_it_and_changes_it(entrypoint: Any) -> None:
    async with job(entrypoint, identity="ada") as talk:
        await get_runtime().store.save_profile("dan", "Name: Dan\nLanguage: Italian")
        memory = memory_of(talk.session)
        await memory.known.set_profile("Name: Ada\nLanguage: fr")
        await until(lambda: memory.language == "fr")
        await talk.session.run(user_input="hello")
        assert 'the code "fr"' in instructions(talk.session)
        await memory.known.forget("Name: Ada", [["fr"]])
        await until(lambda: memory.language == "en")
        follower: list[str] = []
        memory.on_language(follower.append)
        await memory.known.set_profile("Language: Spanish")
        await until(lambda: follower == ["en", "es"])
    async with job(entrypoint, identity="dan") as talk:
        memory = memory_of(talk.session)
        await until(lambda: memory.language == "it")
    async with job(entrypoint, {"language": "nl"}, identity="dan") as talk:
        assert memory_of(talk.session).language == "nl", "the metadata wins"


async def test_it_is_of_the_caller_whom_the_metadata_names(entrypoint: Any) -> None:
    others = {"guest-2": rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD}
    async with job(entrypoint, {"user_id": "ada", "language": "de"}, identity="bea", others=others) as talk:
        assert memory_of(talk.session).language == "en", "neither of the two in the room is ada"
    async with job(entrypoint, {"language": "de"}, identity="guest") as talk:
        memory = memory_of(talk.session)
        assert memory.caller is None
        assert memory.language == "de", "the metadata names no user: it is about the call"


async def test_the_models_listen_and_speak_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with OpenAIServer([]) as server:
        chosen = Settings.from_env({"OPENAI_BASE_URL": server.base_url})
        session: AgentSession[Any] = AgentSession(stt=make_ears(chosen), tts=make_voice(chosen), vad=None)
        speak(session, chosen, "pt-BR")
        assert session.stt is not None
        await session.stt.recognize([rtc.AudioFrame.create(24_000, 1, 2_400)])
        assert server.heard == [("gpt-4o-mini-transcribe", "pt")]
        await session.stt.aclose()

    cloud = {"LIVEKIT_URL": "wss://a.livekit.cloud", "LIVEKIT_API_KEY": "k", "LIVEKIT_API_SECRET": "s"}
    for name, value in cloud.items():
        monkeypatch.setenv(name, value)
    for stt, hears in (("deepgram/nova-3", "de"), ("deepgram/nova-3:multi", "multi")):
        chosen = Settings.from_env({**cloud, "COMPANION_STT": stt})
        session = AgentSession(stt=make_ears(chosen), tts=make_voice(chosen), vad=None)
        speak(session, chosen, "de")
        ears: Any = session.stt
        voice: Any = session.tts
        assert (ears._opts.language, voice._opts.language) == (hears, "de")
