"""Where a fault happens: a redis-server, the road to it, and who may use it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psutil

from tests.faults.background import BackgroundProxy
from tests.faults.certificates import Authority, Pair
from tests.real.redis_server import RedisServer
from tests.real.resp import Part, ask

Transport = Literal["direct", "proxy", "tls"]
NAME, PASSWORD = "worker", "s3cret-word"
"""Who the worker is to the server; its password must never be seen in a log."""


class World:
    """A running server with one user for the worker, reached over ``road``. Use it with ``async with``."""

    def __init__(self, directory: Path, road: Transport, keys: Sequence[str]) -> None:
        self.directory = directory
        self.keys = keys
        """The keys that the worker reads, for faults that spoil them."""
        self.server = RedisServer(directory / "redis", args=["--rdbcompression", "no"])
        self.proxy: BackgroundProxy | None = None
        self.authority: Authority | None = None
        self._road = road
        self._tls: ssl.SSLContext | None = None
        self._open = ExitStack()
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._open.enter_context, self.server)
        await self.welcome_worker()
        if self._road == "tls":
            self.authority = Authority(self.directory / "tls")
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.show(self.authority.issue("good"))
        if self._road != "direct":
            self.proxy = self._open.enter_context(BackgroundProxy(self.server.port, ssl_context=self._tls))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cease()
        await asyncio.to_thread(self._open.close)

    @property
    def port(self) -> int:
        """Where the worker connects."""
        return self.proxy.port if self.proxy else self.server.port

    @property
    def url(self) -> str:
        if self.authority is None:
            return f"redis://{NAME}:{PASSWORD}@127.0.0.1:{self.port}/0"
        return f"rediss://{NAME}:{PASSWORD}@127.0.0.1:{self.port}/0?ssl_ca_certs={self.authority.certificate}"

    async def welcome_worker(self) -> None:
        """Let the worker do everything. A server that was restarted has forgotten it."""
        await self.cli("ACL", "SETUSER", NAME, "reset", "on", f">{PASSWORD}", "~*", "&*", "+@all")

    async def cli(self, *command: Part) -> Any:
        """One command from the operator."""
        return await asyncio.to_thread(self.server.cli, *command)

    async def bulk(self, *commands: Sequence[Part]) -> None:
        """Several, on one connection."""

        def work() -> None:
            with self.server._connect() as link:
                ask(link, *commands)

        await asyncio.to_thread(work)

    async def replace(self, key: str, command: str, *arguments: Part) -> None:
        """Do ``command`` to a key in place of what was there. At once: the worker may write it at any moment."""
        await self.bulk(("MULTI",), ("DEL", key), (command, key, *arguments), ("EXEC",))

    async def network(self, action: Callable[[Any], Any]) -> Any:
        """Do something to the proxy."""
        assert self.proxy is not None, "this fault needs a road with a proxy"
        return await self.proxy.do(action)

    def show(self, pair: Pair) -> None:
        """From now on new TLS connections see this certificate."""
        assert self._tls is not None
        self._tls.load_cert_chain(pair.certificate, pair.key)

    def keep_doing(self, what: Callable[[], Awaitable[Any]], every: float) -> None:
        """Again and again until ``cease``, with ``every`` seconds between."""

        async def repeat() -> None:
            while True:
                await what()
                await asyncio.sleep(every)

        self.meanwhile(repeat())

    def meanwhile(self, what: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Beside everything else, until it ends or ``cease``."""
        self._tasks.append(asyncio.create_task(what, name="fault"))
        return self._tasks[-1]

    async def cease(self) -> None:
        """End what ``keep_doing`` and ``meanwhile`` began. Raises what went wrong there."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


def connections_to(port: int) -> int:
    """How many this process has to that port of this machine."""
    links = psutil.Process().net_connections("tcp4")
    return sum(
        bool(link.raddr) and link.raddr.port == port and link.status == psutil.CONN_ESTABLISHED for link in links
    )
