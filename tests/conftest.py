"""Fixtures for all tests: a real redis-server, a cache, and a clean environment."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cache import CacheSettings, RedisCache, registry
from cache.coherence.pending_entries import PendingEntries
from tests.deployments import DEPLOYMENTS
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.replicated_cluster import ReplicatedCluster, replicated_cluster
from tests.real.redis.sentinels import Watched, watched
from tests.wait import initialised

# If PYTHONDONTWRITEBYTECODE is set, as in many containers, each run, worker and process would compile all modules anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
pytest_plugins = ["tests.plugin"]
OURS = ("REDIS_", "CACHE_", "SUPABASE_", "LIVEKIT_", "OPENAI_", "COMPANION_")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage meanwhile: looking again and again at what stays takes a third of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Freeze imported objects, so that garbage collections during tests skip a million objects of libraries.

    With what little garbage there is among them: to look for it takes a quarter of a second in each worker.
    """
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the developer's settings, and use an empty home."""
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COMPANION_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def pending(monkeypatch: pytest.MonkeyPatch) -> dict[str, PendingEntries]:
    """What is pending in this process, by address of a Redis: shown to the next cache there.

    Each test has its own: the tests of a worker share a server, and what one could not deliver would be taken from the
    next one.
    """
    own: dict[str, PendingEntries] = {}
    monkeypatch.setattr(registry, "_pending", own)  # private: no program begins anew in one process
    return own


@pytest.fixture(scope="session")
def redis_binary(request: pytest.FixtureRequest) -> Path | str | None:
    """What ``redis_server`` and ``own_redis`` run: the default; with the marker ``every_server``, each one.

    With the marker ``every_deployment``, also the name of one of ``DEPLOYMENTS``.
    """
    return getattr(request, "param", None)


@pytest.fixture(scope="session")
def _shared_redis(
    request: pytest.FixtureRequest, redis_binary: Path | str | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer | ReplicatedCluster | Watched]:
    if isinstance(redis_binary, str):
        yield request.getfixturevalue(DEPLOYMENTS[redis_binary])
    else:
        with RedisServer(tmp_path_factory.mktemp("redis"), binary=redis_binary) as server:
            yield server


@pytest.fixture(scope="session")
def shared_trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A server behind Sentinels that several tests share, without failovers."""
    with watched(tmp_path_factory.mktemp("watched")) as trio:
        yield trio


@pytest.fixture
def redis_server(_shared_redis: Any) -> Any:
    """A running, empty server that several tests share: for reads and writes, not for fault injection.

    With the marker ``every_deployment`` also a cluster, or a server behind Sentinels, with what tests use of a server.
    """
    _shared_redis.cli("FLUSHALL")
    _shared_redis.set_epoch()
    return _shared_redis


@pytest.fixture
def own_redis(redis_binary: Path | None, tmp_path: Path) -> Iterator[RedisServer]:
    """A running server of this test's own, for fault injection."""
    with RedisServer(tmp_path / "redis", binary=redis_binary) as server:
        yield server


@pytest.fixture(scope="session")
def _shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedCluster]:
    with replicated_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(_shared_cluster: ReplicatedCluster) -> Iterator[ReplicatedCluster]:
    """A running, empty cluster of three primaries with a replica each. What a test does to it is undone."""
    _shared_cluster.flush()
    yield _shared_cluster
    _shared_cluster.settle()


@pytest.fixture
async def make_cache() -> AsyncIterator[Callable[..., RedisCache]]:
    """Makes caches for a URL, with settings as keywords, and closes them."""
    made: list[RedisCache] = []

    def make(url: str, **settings: Any) -> RedisCache:
        made.append(RedisCache(settings=CacheSettings(url=url, url_is_default=False, **settings)))
        return made[-1]

    yield make
    for cache in made:
        await cache.close()


@pytest.fixture
async def cache(redis_server: RedisServer, make_cache: Callable[..., RedisCache]) -> RedisCache:
    """A connected cache on the shared server, with a generous deadline."""
    cache = make_cache(redis_server.url, deadline=2.0, connect_wait=5.0)
    await initialised(cache)
    return cache
