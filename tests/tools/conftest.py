"""Fixtures: a real Redis and a store for the tools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cache import close_redis_cache
from companion.runtime import Runtime, close_runtime, set_runtime
from companion.settings import Settings
from companion.store import SqliteStore
from tests.real.redis.redis_server import RedisServer


@pytest.fixture
async def use_redis(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[str], None]]:
    """Configure the URL of the loop's cache, with a deadline that a loaded machine meets too."""

    def use(url: str) -> None:
        monkeypatch.setenv("REDIS_URL", url)
        monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")
        monkeypatch.setenv("CACHE_CONNECT_WAIT_MS", "5000")

    yield use
    await close_redis_cache()


@pytest.fixture
def redis(redis_server: RedisServer, use_redis: Callable[[str], None]) -> RedisServer:
    """The shared server, used by the loop's cache."""
    use_redis(redis_server.url)
    return redis_server


@pytest.fixture
async def runtime(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Runtime]:
    """The runtime of the profile tools: SQLite and the shared server."""
    yield set_runtime(Runtime(Settings.from_env(), store=SqliteStore(tmp_path / "store" / "companion.db")))
    await close_runtime()
