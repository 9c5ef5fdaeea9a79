"""Fixtures: multiplexers with a leak check, connected caches, clusters, private servers."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cache import CacheSettings, RedisCache
from cache.exceptions import CommandRejected, WrongKind
from cache.redis_url import Endpoint
from cache.transport.client import ClientListener, Command, Node
from cache.transport.multiplexer import MultiplexedClient
from tests.cache.embedded.private_server import Console, processes, start_console
from tests.inside import engine_of
from tests.real.redis import redis_cluster
from tests.real.redis.redis_server import RedisServer
from tests.wait import initialised, until


class Listener(ClientListener):
    """Does nothing but what is given, each without the node: there is one.

    Attributes:
        found: servers that need another client.
    """

    def __init__(self, **reports: Callable[..., Any]) -> None:
        self.found: list[WrongKind] = []
        vars(self).update({name: _without_node(report) for name, report in reports.items()})

    def on_wrong_kind(self, node: Node, found: WrongKind) -> None:
        self.found.append(found)


def _without_node(report: Callable[..., Any]) -> Callable[..., Any]:
    return lambda node, *args: report(*args)


class Clients:
    """Makes multiplexers. `complaints` are the loop's exception reports; a test that expects some clears them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.made: list[MultiplexedClient] = []
        self.listeners: dict[MultiplexedClient, Listener] = {}
        self.complaints: list[dict[str, Any]] = []

    def complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # Streams report errors of a test's own servers: a multiplexer resets its connection, and the proxy cancels
        # open connections at its end.
        if not any(ours in context["message"] for ours in ("StreamReaderProtocol", "client_connected_cb")):
            self.complaints.append(context)

    async def __call__(
        self,
        port: int = 0,
        *,
        wait: bool = True,
        endpoint: Endpoint | None = None,
        heartbeat: float | None = 0.25,
        handshake: Sequence[Command] = (),
        **options: Any,
    ) -> MultiplexedClient:
        """A started multiplexer to `endpoint`, or to a local `port`; waits for the connection by default.

        `heartbeat`: seconds between two pings while a near cache needs them; None where there is none.
        `options`: settings of the cache, and what to call instead of a `ClientListener`'s methods.
        """
        listener = Listener(**{name: options.pop(name) for name in [*options] if hasattr(ClientListener, name)})
        if heartbeat is not None:
            self._monkeypatch.setattr("cache.transport.heartbeat.PING_EVERY", heartbeat)
            options["near"] = frozenset({"profile"})
        place, settings = endpoint or Endpoint("127.0.0.1", port), CacheSettings(**options)
        client = MultiplexedClient(place, listener, settings, handshake=lambda _: handshake)
        client.start()
        self.made.append(client)
        self.listeners[client] = listener
        if wait:
            await until(lambda: client.up)
        return client


@pytest.fixture
def maintained_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let caches look after themselves fifty times a second, not four: for tests of what they do then, not of when."""
    monkeypatch.setattr("cache.core.maintenance._CHECK_EVERY", 0.02)  # private: only tests are in a hurry


@pytest.fixture(scope="module")
def _frozen() -> None:
    """Let the collection after each test look at what is new, and not at what a whole run has left."""
    gc.collect()
    gc.freeze()


@pytest.fixture
async def clients(_frozen: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clients]:
    """Check afterwards that no task, socket or exception report remains."""
    clients = Clients(monkeypatch)
    asyncio.get_running_loop().set_exception_handler(clients.complain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield clients
        for client in clients.made:
            await client.close()
        await asyncio.sleep(0)
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("cache-")] == []
        clients.made.clear()
        clients.listeners.clear()
        gc.collect()
    assert clients.complaints == []


@pytest.fixture
async def connect(make_cache: Callable[..., RedisCache]) -> Callable[..., Awaitable[RedisCache]]:
    """Makes caches that are connected and tracked, with a generous deadline."""

    async def connect(url: str, *, tracked: bool = True, **settings: Any) -> RedisCache:
        cache = make_cache(url, **({"deadline": 2.0, "connect_wait": 5.0} | settings))
        await initialised(cache)
        if tracked:
            with suppress(CommandRejected):  # a user's rights may not include this key
                await engine_of(cache).transport.send("EXISTS", "")  # in a cluster, connects to its node
            await until(lambda: engine_of(cache).servers.tracks(""))
        return cache

    return connect


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[RedisServer]]]:
    """A "cluster of one" and a "cluster of two", by name: their nodes. Tests flush them first."""
    with redis_cluster.clusters(lambda: tmp_path_factory.mktemp("node")) as formed:
        yield formed


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    """A home for a private server; no process may run there afterwards."""
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
