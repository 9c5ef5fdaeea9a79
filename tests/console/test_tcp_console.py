"""`python -m livekit.agents console agent.py`, which is what `lk agent console` starts, over its TCP protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from uuid import uuid4

import pytest

from companion.offline.replies import NOTICE
from tests.console.leftovers import working_in
from tests.real.livekit.tcp_console import TcpConsole

pytestmark = pytest.mark.console
AGENT = Path(__file__).parents[2] / "agent.py"


async def test_greeting_question_tool_call_answer_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text and audio consoles, concurrently on one COMPANION_HOME."""
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")  # generous: deadlines are not under test
    # One of them owns the private Redis, and neither leaves before both have asked for the cache's state.
    both = asyncio.Barrier(2)
    await asyncio.gather(*(conversation(tmp_path, both, text=text) for text in (True, False)))
    assert working_in(tmp_path / "home") == []


async def test_a_console_continues_after_the_one_that_started_the_private_redis(tmp_path: Path) -> None:
    joined = console_of_a_new_user(tmp_path, text=True)
    async with contextlib.AsyncExitStack() as later:
        async with console_of_a_new_user(tmp_path, text=True) as owner:
            await owner.next_message()
            await later.enter_async_context(joined)
            await joined.next_message()
            await joined.say("My name is Ada")
        turn = await joined.say("What do you know about me?")
        assert "Ada" in turn.text
    assert "Traceback" not in joined.process.log
    assert working_in(tmp_path / "home") == []


def console_of_a_new_user(directory: Path, *, text: bool) -> TcpConsole:
    # Without data in a Redis of this machine, if there is one.
    env = {**os.environ, "COMPANION_USER_ID": f"test-{uuid4()}"}
    return TcpConsole(AGENT, cwd=directory, env=env, text=text)


async def conversation(directory: Path, both: asyncio.Barrier, *, text: bool) -> None:
    async with console_of_a_new_user(directory, text=text) as console:
        greeting = await console.next_message()
        assert greeting.startswith(NOTICE)
        assert "What is your name?" in greeting

        turn = await console.say("My name is Ada")
        assert [call.name for call in turn.calls] == ["updateUserProfile"]
        assert json.loads(turn.calls[0].arguments) == {"profile": "Name: Ada"}
        assert json.loads(turn.outputs[0])["success"] is True
        assert turn.text.startswith("Nice to meet you, Ada.")

        turn = await console.say("cache stats")
        assert [call.name for call in turn.calls] == ["getRedisCacheStats"]
        assert json.loads(turn.outputs[0])["status"] == "healthy"
        assert turn.text.startswith("The cache is healthy")
        await both.wait()
    assert "Traceback" not in console.process.log
