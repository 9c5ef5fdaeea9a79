"""Who listens to changes made elsewhere, and with which cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache import get_redis_cache
from companion.caching import listening as elsewhere
from companion.caching.listening import start_listening
from companion.runtime import close_runtime, get_runtime
from companion.settings import Settings
from tests.real.redis_server import RedisServer, unused_port

pytestmark = pytest.mark.integration


def project(home: Path) -> Settings:
    return Settings(
        home=home, models="offline", supabase_url=f"http://127.0.0.1:{unused_port()}", supabase_key="sb_secret_test"
    )


async def test_nobody_listens_without_a_project_or_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start_listening(Settings(home=tmp_path, models="offline")) is None
    monkeypatch.setenv("REDIS_ENABLED", "false")
    assert start_listening(project(tmp_path)) is None


async def test_a_change_reaches_the_cache(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")
    task = start_listening(project(tmp_path))
    assert task is not None
    listener = await task
    try:
        await (await get_redis_cache()).set("user:1:profile", "old")
        await elsewhere._forget("1", "profile")
        assert redis_server.cli("EXISTS", "user:1:profile") == 0
    finally:
        await listener.stop()
        await close_runtime()


async def test_a_local_worker_tells_its_private_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    async def open_local_cache(runtime: object) -> None:
        opened.append(get_runtime().settings.home)

    monkeypatch.setattr("companion.runtime.Runtime.open_local_cache", open_local_cache)
    task = start_listening(project(tmp_path), local=True)
    assert task is not None
    listener = await task
    await listener.stop()
    await close_runtime()
    assert opened == [tmp_path / "home"]
