"""A slow source: the real SQLite store and a stand-in model, each with a given latency."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions, llm

from companion.runtime import Runtime, set_runtime
from companion.settings import Settings
from companion.store import SqliteStore, Turn

PROFILE = "Name: Ann\nLives in: Oslo\n" + "Likes: long walks by the sea\n" * 8
_DECISION = json.dumps({"follow_up": True, "confidence": 0.9, "topic": "how the move to Oslo went"})


class DelayedStore:
    """Delays every operation of a store by ``seconds``."""

    def __init__(self, store: SqliteStore, seconds: float) -> None:
        self._store = store
        self.seconds = seconds

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)

        async def later(*args: Any, **named: Any) -> Any:
            await asyncio.sleep(self.seconds)
            return await operation(*args, **named)

        return later


class DelayedLLM(llm.LLM[Any]):
    """Always proposes the same follow-up, ``seconds`` after the request."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> llm.LLMStream:
        """Answer after the delay."""
        return _Stream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Stream(llm.LLMStream):
    _llm: DelayedLLM

    async def _run(self) -> None:
        await asyncio.sleep(self._llm.seconds)
        delta = llm.ChoiceDelta(role="assistant", content=_DECISION)
        self._event_ch.send_nowait(llm.ChatChunk(id=uuid4().hex, delta=delta))


def slow_runtime(home: Path, *, store: float = 0.0, model: float = 0.0) -> Runtime:
    """Install a runtime with delays in the running loop.

    Args:
        home: directory of the database.
        store: seconds added to each operation of the store.
        model: seconds until the model answers.
    """
    # The consistency check would read concurrently, and report that two separate caches differ.
    quiet = {"COMPANION_MODELS": "offline", "COMPANION_WATCH_SHARE": "0"}
    settings = Settings.from_env({"COMPANION_HOME": str(home), **quiet})
    source: Any = DelayedStore(SqliteStore(home / "companion.db"), store)
    return set_runtime(Runtime(settings, store=source, model=DelayedLLM(model)))


async def seed_user(runtime: Runtime, user_id: str) -> None:
    """Write the profile and the last turn of a user who called yesterday."""
    yesterday = datetime.now(UTC) - timedelta(hours=20)
    await runtime.store.save_profile(user_id, PROFILE)
    await runtime.store.add_turn(
        user_id, Turn(role="user", text="I am moving to Oslo on Friday", at=yesterday, conversation_id="earlier")
    )
