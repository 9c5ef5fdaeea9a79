"""The context delays the first word not at all if cached, and never by more than its deadline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from livekit.agents.telemetry import set_tracer_provider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider

from benchmarks.first_word import CONNECT, MODEL, STORE, collect_spans, seed_earlier_conversation, start
from tests.lag import LoopLag
from tests.real.redis.redis_server import RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.timed]
SLACK = 0.25  # seconds, for all that is not the context; beside it, the loop's lag counts


@pytest.fixture
def exporter(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[InMemorySpanExporter]:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")
    monkeypatch.setenv("CACHE_CONNECT_WAIT_MS", "5000")  # a start that finds no Redis in time fills nothing
    monkeypatch.chdir(tmp_path)
    yield collect_spans()
    set_tracer_provider(NoOpTracerProvider())


async def test_cold_then_warm(exporter: InMemorySpanExporter, tmp_path: Path) -> None:
    await seed_earlier_conversation(tmp_path, "ann")
    async with LoopLag() as lag:
        cold = await start(exporter, tmp_path, "ann")
    assert list(cold.moments) == [
        "job received",
        "lookup started",
        "connected",
        "context ready",
        "greeting asked",
        "first token",
    ]
    assert (
        cold.moments["context ready"] < max(STORE + MODEL, CONNECT) + SLACK + lag.seconds
    )  # concurrently, not in sequence
    warm = await start(exporter, tmp_path, "ann")
    assert warm.context_adds == 0
    assert warm.moments["lookup started"] < warm.moments["context ready"] < warm.moments["connected"]
    assert set(warm.spans) == {"companion.context", "companion.connect"}
    for span in exporter.get_finished_spans():
        if span.name.startswith("companion."):
            assert {name.split(".")[0] for name in span.attributes or {}} <= {
                "gen_ai"
            }  # LiveKit's; none about a person
            assert "ann" not in str(dict(span.attributes or {}))


async def test_a_store_that_hangs_costs_no_more_than_a_second(exporter: InMemorySpanExporter, tmp_path: Path) -> None:
    async with LoopLag() as lag:
        hung = await start(exporter, tmp_path, "ann", delay=None)
    assert hung.moments["greeting asked"] < 1.0 + SLACK + lag.seconds
