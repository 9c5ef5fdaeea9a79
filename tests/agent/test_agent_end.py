"""The end of a job closes what the job has opened: the process, and its other jobs, may go on for days."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from companion.conversation.session_memory import memory_of
from companion.offline.llm import OfflineLLM
from companion.voice.models import close_models
from tests.agent.test_agent import entrypoint, job
from tests.real.models.openai_server import OpenAIServer

pytestmark = pytest.mark.integration
__all__ = ["entrypoint"]


async def test_the_models_are_closed_when_the_next_greeting_is_spoken(
    entrypoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiveKit leaves the models of a session open."""
    closed: list[tuple[object, bool, int]] = []
    async with OpenAIServer(lambda _: "Hello.") as server:
        for name, value in {
            "COMPANION_MODELS": "openai",
            "OPENAI_API_KEY": "test",
            "OPENAI_BASE_URL": server.base_url,
        }.items():
            monkeypatch.setenv(name, value)
        from livekit.plugins import openai

        def noted(kind: type[Any]) -> None:
            close = kind.aclose

            async def aclose(model: Any) -> None:
                closed.append((model, memory_of(talk.session) is None, len(server.spoken)))
                await close(model)

            monkeypatch.setattr(kind, "aclose", aclose)

        noted(openai.STT)
        noted(openai.TTS)
        async with job(entrypoint, {"user_id": "ada"}) as talk:
            await talk.session.run(user_input="I like chess")
            talk.session.options.session_close_transcript_timeout = 0.1  # nothing is heard here
            spoken = len(server.spoken)
        assert {each for each, *_ in closed} == {talk.session.stt, talk.session.tts}
        assert all(wrapped_up and count > spoken for _, wrapped_up, count in closed)
        assert asyncio.all_tasks() <= {asyncio.current_task(), *server_tasks()}


def server_tasks() -> set[asyncio.Task[Any]]:
    """The tasks of the stand-in, which answers in the same loop."""
    return {task for task in asyncio.all_tasks() if "RequestHandler" in repr(task.get_coro())}


async def test_models_that_hang_or_fail_hold_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.voice.models.CLOSE_TIMEOUT", 0.05)
    done: list[str] = []

    class Model(OfflineLLM):
        def __init__(self, end: str) -> None:
            super().__init__()
            self.end = end

        async def aclose(self) -> None:
            if self.end == "hangs":
                await asyncio.Event().wait()
            if self.end == "fails":
                raise RuntimeError("secret")
            done.append(self.end)

    await close_models(None, Model("hangs"), Model("fails"), Model("ends"))
    assert done == ["ends"]
    await close_models()
