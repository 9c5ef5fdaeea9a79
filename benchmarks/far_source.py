"""A source of truth that is far away: the real SQLite store and a stand-in model, each after a given time."""

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
_VERDICT = json.dumps({"follow_up": True, "confidence": 0.9, "topic": "how the move to Oslo went"})


class FarStore:
    """Every operation of a store, ``seconds`` later."""

    def __init__(self, store: SqliteStore, seconds: float) -> None:
        self._store = store
        self.seconds = seconds

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)

        async def later(*args: Any, **named: Any) -> Any:
            await asyncio.sleep(self.seconds)
            return await operation(*args, **named)

        return later


class SlowModel(llm.LLM[Any]):
    """Always finds the same thread to pick up, ``seconds`` after it is asked."""

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
        """Answer, late."""
        return _Stream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Stream(llm.LLMStream):
    _llm: SlowModel

    async def _run(self) -> None:
        await asyncio.sleep(self._llm.seconds)
        delta = llm.ChoiceDelta(role="assistant", content=_VERDICT)
        self._event_ch.send_nowait(llm.ChatChunk(id=uuid4().hex, delta=delta))


def far_runtime(home: Path, *, store: float = 0.0, model: float = 0.0) -> Runtime:
    """The running loop's runtime, from now on.

    Args:
        home: where the database is.
        store: seconds that each operation of the store takes at least.
        model: seconds that the model takes to answer.
    """
    # The consistency watch reads behind what is measured, and finds that two caches know nothing of each other.
    quiet = {"COMPANION_MODELS": "offline", "COMPANION_WATCH_SHARE": "0"}
    settings = Settings.from_env({"COMPANION_HOME": str(home), **quiet})
    source: Any = FarStore(SqliteStore(home / "companion.db"), store)
    return set_runtime(Runtime(settings, store=source, model=SlowModel(model)))


async def acquaint(runtime: Runtime, user_id: str) -> None:
    """Let the store know a user who was here yesterday."""
    yesterday = datetime.now(UTC) - timedelta(hours=20)
    await runtime.store.save_profile(user_id, PROFILE)
    await runtime.store.add_turn(
        user_id, Turn(role="user", text="I am moving to Oslo on Friday", at=yesterday, conversation_id="earlier")
    )
