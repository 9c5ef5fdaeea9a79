"""Fixtures: a runtime with store, cache and a scripted model, and a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from companion.runtime import Runtime, close_runtime, set_runtime
from companion.settings import Settings
from companion.store import SqliteStore
from tests.companion.processes import stop_fork_server
from tests.companion.scripted import ScriptedLLM
from tests.real.redis.redis_server import RedisServer
from tests.real.supabase.postgres import Postgres


@pytest.fixture
def model() -> ScriptedLLM:
    """A model that answers every request with ``model.says``."""
    return ScriptedLLM()


@pytest.fixture
async def runtime(
    redis_server: RedisServer, tmp_path: Path, model: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Runtime]:
    """The runtime used by the public functions: SQLite, a real Redis, the scripted model."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")
    monkeypatch.setenv("CACHE_CONNECT_WAIT_MS", "5000")
    # Bounds the delay of closing when a store hangs.
    monkeypatch.setattr("companion.caching.outbox_relay.DRAIN_TIMEOUT", 0.3)
    store = SqliteStore(tmp_path / "store" / "companion.db")
    yield set_runtime(Runtime(Settings.from_env(), store=store, model=model))
    await close_runtime()


@pytest.fixture
def home(tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a worker with SQLite and a real Redis, for commands that run on its machine."""
    for name, value in {
        "COMPANION_HOME": str(tmp_path / "home"),
        "REDIS_URL": redis_server.url,
        "CACHE_CONNECT_WAIT_MS": "5000",
        "CACHE_DEADLINE_MS": "2000",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SUPABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture(scope="session", autouse=True)
def _stopped_fork_server() -> Iterator[None]:
    yield
    stop_fork_server()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def project(postgres: Postgres) -> str:
    """The DSN of a database with all migrations applied. Tests share it: each uses users of its own."""
    return await postgres.create_database()


@pytest.fixture
def user() -> str:
    """A user id that no other test uses."""
    return str(uuid4())
