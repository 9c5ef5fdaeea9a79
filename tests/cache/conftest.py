"""Lanes that leave nothing behind, and caches that are connected."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cache import RedisCache
from cache.transport.endpoint import Endpoint
from cache.transport.multiplexer import MultiplexedClient
from tests.cache.private_server import Console, processes, start_console
from tests.inside import engine_of
from tests.real import redis_cluster
from tests.real.redis_server import RedisServer
from tests.wait import initialised, until


class Lanes:
    """Makes lanes. `complaints`: what the loop's exception handler was told; a test that expects some clears them."""

    def __init__(self) -> None:
        self.made: list[MultiplexedClient] = []
        self.complaints: list[dict[str, Any]] = []

    def complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # Streams complain of what a test's own servers meet: a lane hangs up with a reset, and the proxy, at its end,
        # cancels connections it still serves.
        if not any(ours in context["message"] for ours in ("StreamReaderProtocol", "client_connected_cb")):
            self.complaints.append(context)

    async def __call__(
        self, port: int = 0, *, wait: bool = True, endpoint: Endpoint | None = None, **options: Any
    ) -> MultiplexedClient:
        """A started lane to `endpoint`, or to `port` of this machine; connected unless told not to wait."""
        lane = MultiplexedClient(endpoint or Endpoint("127.0.0.1", port), **options)
        self.made.append(lane)
        lane.start()
        if wait:
            await until(lambda: lane.up)
        return lane


@pytest.fixture
async def lanes() -> AsyncIterator[Lanes]:
    """Afterwards nothing of them may be left: no task, no socket, no complaint of the loop."""
    lanes = Lanes()
    asyncio.get_running_loop().set_exception_handler(lanes.complain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield lanes
        for lane in lanes.made:
            await lane.close()
        await asyncio.sleep(0)
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("cache-")] == []
        lanes.made.clear()
        gc.collect()
    assert lanes.complaints == []


@pytest.fixture
async def connect(make_cache: Callable[..., RedisCache]) -> Callable[..., Awaitable[RedisCache]]:
    """Makes caches that are connected and tracked. The deadline is generous: these tests are not about it."""

    async def connect(url: str, *, tracked: bool = True, **settings: Any) -> RedisCache:
        cache = make_cache(url, **({"deadline": 2.0, "connect_wait": 5.0} | settings))
        await initialised(cache)
        if tracked:
            await until(lambda: engine_of(cache).tracking)
        return cache

    return connect


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[RedisServer]]]:
    """A "cluster of one" and a "cluster of two", by name: their nodes. Whoever uses them empties them first."""
    with redis_cluster.clusters(lambda: tmp_path_factory.mktemp("node")) as formed:
        yield formed


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    """A home for a private server; afterwards nothing may run there."""
    home = tmp_path / "a home"
    yield home
    await until(lambda: not processes(home))


@pytest.fixture
def console() -> Iterator[Console]:
    """Starts consoles: the first in a home owns its server."""
    started: list[subprocess.Popen[str]] = []

    def start(home: Path) -> subprocess.Popen[str]:
        started.append(start_console(home))
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()
