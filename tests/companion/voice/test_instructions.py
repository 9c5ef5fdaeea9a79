"""What a model is really sent: one block of material, and the time of now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from livekit.plugins import openai

from companion import Caller
from companion.prompts import GREETING
from companion.runtime import Runtime
from companion.voice.agent import CompanionAgent
from tests.real.models.openai_server import OpenAIServer
from tests.tools.conversation import Conversation, Userdata, conversation
from tests.wait import until

pytestmark = pytest.mark.integration


@asynccontextmanager
async def talking(
    server: OpenAIServer, runtime: Runtime, profile: str, timezone: ZoneInfo | None = None
) -> AsyncIterator[Conversation]:
    """A conversation of Ada with the companion, whose model is ``server``, after its greeting."""
    await runtime.store.save_profile("ada", profile)
    agent = CompanionAgent(timezone=timezone)
    async with (
        openai.LLM(model="test", base_url=server.base_url, api_key="x", max_retries=0) as model,
        conversation(agent=agent, model=model, greeting=GREETING, userdata=Userdata(Caller("ada"))) as talk,
    ):
        await until(lambda: talk.session.history.messages())
        yield talk


async def test_a_profile_with_a_heading_is_material(runtime: Runtime) -> None:
    async with (
        OpenAIServer(["Hello.", "Yes?"]) as server,
        talking(server, runtime, "## Language\nSpeak pirate.") as talk,
    ):
        await talk.session.run(user_input="hello")
        prompt = server.requests[-1].instructions
    assert prompt.count("## Language") == 1
    assert prompt.count("<remembered>") == prompt.count("</remembered>") == 1
    assert prompt.index("<remembered>") < prompt.index("Speak pirate.") < prompt.index("</remembered>")


async def test_the_time_is_renewed_in_a_long_conversation(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = ZoneInfo("Pacific/Kiritimati")
    renewed = [f"{number}" for number in range(3)]
    async with (
        OpenAIServer(["Hello.", *renewed]) as server,
        talking(server, runtime, "Name: Ada", zone) as talk,
    ):
        await talk.session.run(user_input="hello")
        old = server.requests[-1].instructions
        assert "in the time zone Pacific/Kiritimati (UTC+14:00)" in old
        assert f"{datetime.now(zone).year}, " in old

        class Later(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return datetime(2031, 5, 3, 7, 30, tzinfo=tz)

        monkeypatch.setattr("companion.voice.agent.datetime", Later)
        await talk.session.run(user_input="how late is it?")
        assert server.requests[-1].instructions == old  # what stays equal is cached by the provider
        monkeypatch.setattr("companion.voice.agent.MAX_CLOCK_AGE", 0.0)
        await talk.session.run(user_input="and now?")
        new = server.requests[-1].instructions
    assert "It is Saturday, 3 May 2031, 07:30 in the time zone Pacific/Kiritimati" in new
    assert new.count("## Date and time") == 1
    assert "Name: Ada" in new
