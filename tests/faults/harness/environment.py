"""The environment of a scenario: a redis-server, the route to it, and the worker's credentials."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psutil

from tests.faults.harness.background_proxy import BackgroundProxy
from tests.faults.harness.certificates import Authority, Pair
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.resp import Part, ask

Route = Literal["direct", "proxy", "tls"]
WORKER, PASSWORD = "worker", "s3cret-word"
"""The worker's ACL user and password; the password must never appear in a log."""


class Environment:
    """A running server with an ACL user for the worker, reached over ``route``. Use it with ``async with``."""

    def __init__(self, directory: Path, route: Route, keys: Sequence[str]) -> None:
        self.directory = directory
        self.keys = keys
        """The keys that the worker reads, for faults that corrupt them."""
        self.server = RedisServer(directory / "redis", args=["--rdbcompression", "no"])
        self.proxy: BackgroundProxy | None = None
        self.authority: Authority | None = None
        self._route = route
        self._tls: ssl.SSLContext | None = None
        self._open = ExitStack()
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._open.enter_context, self.server)
        await self.grant_worker_access()
        if self._route == "tls":
            self.authority = Authority(self.directory / "tls")
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.present(self.authority.issue("good"))
        if self._route != "direct":
            self.proxy = self._open.enter_context(BackgroundProxy(self.server.port, ssl_context=self._tls))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_background()
        await asyncio.to_thread(self._open.close)

    @property
    def port(self) -> int:
        """The port that the worker connects to."""
        return self.proxy.port if self.proxy else self.server.port

    @property
    def url(self) -> str:
        if self.authority is None:
            return f"redis://{WORKER}:{PASSWORD}@127.0.0.1:{self.port}/0"
        return f"rediss://{WORKER}:{PASSWORD}@127.0.0.1:{self.port}/0?ssl_ca_certs={self.authority.certificate}"

    async def grant_worker_access(self) -> None:
        """Create the worker's ACL user with all rights. A restart of the server drops it."""
        await self.cli("ACL", "SETUSER", WORKER, "reset", "on", f">{PASSWORD}", "~*", "&*", "+@all")

    async def cli(self, *command: Part) -> Any:
        """Execute one command as the default user."""
        return await asyncio.to_thread(self.server.cli, *command)

    async def pipeline(self, *commands: Sequence[Part]) -> None:
        """Execute several commands on one connection."""

        def work() -> None:
            with self.server.connect() as connection:
                ask(connection, *commands)

        await asyncio.to_thread(work)

    async def replace(self, key: str, command: str, *arguments: Part) -> None:
        """Replace a key by executing ``command`` on it, atomically: the worker may write it at any moment."""
        await self.pipeline(("MULTI",), ("DEL", key), (command, key, *arguments), ("EXEC",))

    async def on_proxy(self, action: Callable[[Any], Any]) -> Any:
        """Run ``action`` on the proxy."""
        assert self.proxy is not None, "this fault needs a route with a proxy"
        return await self.proxy.apply(action)

    def present(self, pair: Pair) -> None:
        """Present this certificate on new TLS connections."""
        assert self._tls is not None
        self._tls.load_cert_chain(pair.certificate, pair.key)

    def repeat(self, action: Callable[[], Awaitable[Any]], every: float) -> None:
        """Run ``action`` every ``every`` seconds until ``stop_background``."""

        async def loop() -> None:
            while True:
                await action()
                await asyncio.sleep(every)

        self.run_in_background(loop())

    def run_in_background(self, action: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task until it ends or ``stop_background``."""
        self._tasks.append(asyncio.create_task(action, name="fault"))
        return self._tasks[-1]

    async def stop_background(self) -> None:
        """Cancel what ``repeat`` and ``run_in_background`` started. Their errors propagate."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


def connections_to(port: int) -> int:
    """Number of established connections of this process to a local port."""
    connections = psutil.Process().net_connections("tcp4")
    return sum(
        bool(connection.raddr) and connection.raddr.port == port and connection.status == psutil.CONN_ESTABLISHED
        for connection in connections
    )
