"""A companion with a store and a cache of its own, and a model that says what the test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from companion.runtime import Runtime, close_runtime, set_runtime
from companion.settings import Settings
from companion.store import SqliteStore
from tests.companion.scripted import ScriptedLLM
from tests.real.redis_server import RedisServer


@pytest.fixture
def model() -> ScriptedLLM:
    """Answers every question with ``model.says``."""
    return ScriptedLLM()


@pytest.fixture
async def runtime(
    redis_server: RedisServer, tmp_path: Path, model: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Runtime]:
    """The runtime that the public functions find: SQLite, a real Redis, the scripted model."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")
    monkeypatch.setenv("CACHE_CONNECT_WAIT_MS", "5000")
    monkeypatch.setattr(
        "companion.caching.outbox_relay._DRAIN", 0.3
    )  # where a store hangs, closing waits for it so long
    store = SqliteStore(tmp_path / "store" / "companion.db")
    yield set_runtime(Runtime(Settings.from_env(), store=store, model=model))
    await close_runtime()
