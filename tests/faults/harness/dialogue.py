"""A session through the worker's real entrypoint, in this process, with the offline model and SQLite."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from livekit.agents import AgentSession, llm
from livekit.agents.ipc.mock_room import create_mock_room

from companion.conversation.session_memory import memory_of
from companion.store import SqliteStore, Store, Turn
from tests.real.livekit.job_context import job_context
from tests.wait import until

USER = "ada"
PROFILE = "Name: Ada"
TOPIC = "my sister visits on Friday"
_ANSWER_TIMEOUT = 5.0  # seconds until an answer counts as missing


class Dialogue:
    """A running session, addressed by text."""

    def __init__(self, session: AgentSession[Any]) -> None:
        self.session = session

    @property
    def greeting(self) -> str:
        return str(self.session.history.messages()[0].text_content)

    @property
    def prompt(self) -> str:
        """The instructions and the memory block of the model's next request."""
        memory = memory_of(self.session)
        return f"{self.session.current_agent.instructions}\n\n{memory.text if memory else ''}"

    async def say(self, words: str, within: float = _ANSWER_TIMEOUT) -> str:
        """Send one user turn and return the answer; empty if none arrives ``within`` this many seconds."""
        try:
            async with asyncio.timeout(within):
                events = (await self.session.run(user_input=words)).events
        except TimeoutError:
            return ""
        item = events[-1].item if events else None
        return str(item.text_content) if isinstance(item, llm.ChatMessage) and item.role == "assistant" else ""


@asynccontextmanager
async def open_dialogue(user_id: str = USER, room: Any = None) -> AsyncIterator[Dialogue]:
    """Run a user's job as a LiveKit server would dispatch it. The greeting has been given when the block begins.

    Args:
        user_id: the user in the job's metadata.
        room: a mock room to reuse; making one takes 25 ms.
    """
    from agent import entrypoint  # imported here: the import reads the environment

    room = room or create_mock_room.__wrapped__()
    async with job_context(room, json.dumps({"user_id": user_id})) as ctx:
        await entrypoint(ctx)
        running: AgentSession[Any] = ctx.primary_session
        await until(lambda: running.history.messages())
        yield Dialogue(running)


async def seed_earlier_conversation(store: Store) -> None:
    """Write the profile and the last turn of an earlier conversation of ``USER``."""
    await store.save_profile(USER, PROFILE)
    at = datetime.now(UTC) - timedelta(hours=1)
    await store.add_turn(USER, Turn(role="user", text=TOPIC, at=at, conversation_id="an earlier one"))


@asynccontextmanager
async def open_store() -> AsyncIterator[SqliteStore]:
    """A second connection to the worker's store."""
    opened = SqliteStore(Path(os.environ["COMPANION_HOME"]) / "companion.db")
    try:
        yield opened
    finally:
        await opened.close()
