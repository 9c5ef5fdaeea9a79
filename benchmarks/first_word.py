"""The time to the first token, cold and warm, as the spans of a start tell it.

The real entrypoint runs in this process, with a store that takes 300 ms, a model that takes 700 ms to decide on a
follow-up, and a room that takes 500 ms to connect (about as long as a real one). The offline voice greets.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from livekit.agents import llm
from livekit.agents.ipc.mock_room import create_mock_room
from livekit.agents.telemetry import set_tracer_provider
from livekit.agents.testing import fake_job_context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from companion.offline.llm import OfflineLLM
from companion.prompts import FOLLOW_UP_PROMPT
from companion.runtime import Runtime, set_runtime
from companion.settings import Settings
from companion.store import Context, SqliteStore, Turn
from companion.voice.tracing import ROOT
from tests.wait import until

STORE, MODEL, CONNECT = 0.3, 0.7, 0.5
"""Seconds."""


class SlowStore(SqliteStore):
    """Delays reading a context by ``delay`` seconds; forever if it is None."""

    delay: float | None = STORE

    async def context(self, user_id: str, turns: int = 12) -> Context:
        await (asyncio.Event().wait() if self.delay is None else asyncio.sleep(self.delay))
        return await super().context(user_id, turns)


class SlowDecision(OfflineLLM):
    """The offline voice with the latency of a real model for follow-up decisions."""

    def chat(self, *, chat_ctx: llm.ChatContext, **options: Any) -> llm.LLMStream:
        first = chat_ctx.items[0] if chat_ctx.items else None
        deciding = isinstance(first, llm.ChatMessage) and (first.text_content or "").startswith(FOLLOW_UP_PROMPT[:60])
        stream = super().chat(chat_ctx=chat_ctx, **options)
        if deciding:
            run = stream._run

            async def slowly() -> None:
                await asyncio.sleep(MODEL)
                await run()

            stream._run = slowly  # type: ignore[method-assign]  # the hook for delaying a stream
        return stream


@dataclass(frozen=True)
class Timeline:
    """Spans and events of one start, in seconds after the job was received."""

    spans: dict[str, tuple[float, float]]
    moments: dict[str, float]

    @property
    def context_adds(self) -> float:
        """Seconds between the connection of the room and the readiness of the context."""
        return max(0.0, self.moments["context ready"] - self.moments["connected"])


def read(spans: list[ReadableSpan]) -> Timeline:
    """The timeline of the last start among ``spans``."""
    root = [span for span in spans if span.name == ROOT][-1]
    zero = root.start_time or 0
    ours = [span for span in spans if span.parent and root.context and span.parent.span_id == root.context.span_id]
    return Timeline(
        {s.name: (((s.start_time or 0) - zero) / 1e9, ((s.end_time or 0) - zero) / 1e9) for s in ours},
        {event.name: (event.timestamp - zero) / 1e9 for event in root.events},
    )


async def start(exporter: InMemorySpanExporter, home: Path, user: str, *, delay: float | None = STORE) -> Timeline:
    """Run one conversation and return the timeline of its start."""
    from agent import entrypoint

    store = SlowStore(home / "companion.db")
    store.delay = delay
    set_runtime(Runtime(Settings.from_env(), store=store, model=SlowDecision()))
    with fake_job_context(room=create_mock_room.__wrapped__(), job_metadata=json.dumps({"user_id": user})) as ctx:
        ctx._info.fake_job = False

        async def connect(*_: Any, **__: Any) -> None:
            await asyncio.sleep(CONNECT)

        ctx.connect = connect  # type: ignore[method-assign]  # a room with a realistic latency
        exporter.clear()
        try:
            await entrypoint(ctx)
            await until(lambda: any(span.name == ROOT for span in exporter.get_finished_spans()))  # the first token
            return read(list(exporter.get_finished_spans()))
        finally:
            if ctx._primary_agent_session is not None:
                await ctx._primary_agent_session.aclose()
            await asyncio.gather(*(callback("the end") for callback in ctx._shutdown_callbacks))
            await ctx._on_cleanup()


def collect_spans() -> InMemorySpanExporter:
    """Collect every span of this process from now on."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    set_tracer_provider(provider)
    return exporter


async def seed_earlier_conversation(home: Path, user: str) -> None:
    """Write a conversation of half an hour ago, so that the model decides on a follow-up."""
    store = SqliteStore(home / "companion.db")
    at = datetime.now(UTC) - timedelta(minutes=30)
    await store.add_turn(user, Turn("user", "I prepare a chess tournament", at, "earlier"))
    await store.close()
