"""Makes the multiplexed connections: addresses, handshake, and how soon after a failure the next attempt begins.

After a loss an attempt begins at once; after 10 to 80 ms if the server refuses connections or is loading; after a fifth
of a second if it rejects us; and the longer that lasts, the longer the pause (``attempts.backoff``).
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Callable, Sequence

from ..background import BackgroundTasks
from ..exceptions import CacheUnavailable, ConnectionLost, HandshakeFailed
from ..redis_url import Endpoint, host_port
from .attempts import Attempts
from .client import Argument
from .connection import RespConnection
from .dial import Names, dial
from .handshake import REJECTED, ask_without_hello, commands, failure, judge, other_protocol
from .sentinel import MOVED, PrimaryFinder

_STABLE = 1.0  # a connection that lasted so long makes the pauses short again
_OTHER_PROTOCOL = (0.25, 5.0)  # seconds of failing after which a server is asked in the other protocol, first and again
_OTHER_TIMEOUT = 1.0


class Connector:
    """Makes connections to one endpoint, one after another.

    Args:
        setup: returns the commands sent in the handshake, before the connection is used. Each may be rejected.
        on_failed: called with the error of each failed attempt and the reason, which holds no credentials.
        node: whether the endpoint is a node of a cluster.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        setup: Callable[[], Sequence[tuple[Argument, ...]]],
        connect_timeout: float,
        on_failed: Callable[[BaseException | None, str], None],
        *,
        node: bool,
    ) -> None:
        self._endpoint, self._setup, self._node = endpoint, setup, node
        self._on_failed = on_failed
        self._background = BackgroundTasks()
        self._attempts = Attempts(
            self._attempt, connect_timeout, self._background, self._failed, lambda late: late[0].lose("not needed")
        )
        self._names = Names(self._background)
        self._primary = PrimaryFinder(endpoint, self._names, self._background)
        self._dialled: tuple[Endpoint, list[str]] | None = None  # the server of the last attempt, and its addresses
        self._next_address = 0
        self._silent = True  # the server has not answered in the protocol of the URL
        self._other_protocol = ""  # why no attempt can succeed, if the server speaks only the other protocol

    async def connect(self, lived: float = math.inf) -> RespConnection:
        """Attempt until a connection is made. ``lived``: seconds the last one lasted; if few, the pauses stay long."""
        asking = self._background.spawn(self._ask_in_the_other_protocol(), name="cache-other-protocol")
        try:
            connection, server = await self._attempts.first(afresh=lived >= _STABLE)
        finally:
            asking.cancel()
        self._other_protocol = ""
        self._primary.follow(server, lambda: connection.lose(MOVED))
        return connection

    async def close(self) -> None:
        """Wait until every attempt has ended. :meth:`connect` must have ended before."""
        await self._background.cancel()

    async def _ask_in_the_other_protocol(self) -> None:
        """Find out, beside the attempts, whether the URL names the wrong protocol."""
        first, again = _OTHER_PROTOCOL
        await asyncio.sleep(first)
        while True:
            if self._silent and self._dialled:
                server, addresses = self._dialled
                address = addresses[self._next_address % len(addresses)]
                self._other_protocol = await other_protocol(server, address, _OTHER_TIMEOUT)
                if self._other_protocol:
                    self._on_failed(None, self._other_protocol)
            await asyncio.sleep(again)

    def _failed(self, error: BaseException) -> float:
        """Report the failure. Returns the seconds for which it asks until the next attempt."""
        self._silent = not isinstance(error, HandshakeFailed | ssl.SSLCertVerificationError)
        pause = 0.0 if self._silent and isinstance(error, OSError | CacheUnavailable) else REJECTED
        if isinstance(error, HandshakeFailed):
            pause = error.pause
        reason = failure(error)
        if self._endpoint.sentinels and self._dialled and isinstance(error, OSError):
            reason += f" to {host_port(self._dialled[0].host, self._dialled[0].port)}, which the Sentinels name"
        self._on_failed(error, (self._silent and self._other_protocol) or reason)
        return pause

    async def _attempt(self) -> tuple[RespConnection, Endpoint]:
        connection, server = await self._open()
        setup = self._setup()
        handshake = commands(self._endpoint, setup)
        try:
            try:
                connection.greeted_at = connection.loop.time()
                connection.handshake_replies = await judge(connection, handshake, len(setup), node=self._node)
            except ConnectionLost:
                connection, _ = await self._open()
                await ask_without_hello(connection, self._endpoint, handshake)
                raise
        except BaseException as error:
            if isinstance(error, HandshakeFailed):
                self._next_address += 1  # of several addresses, this one may be a replica's
            await connection.end("not needed")
            raise
        return connection, server

    async def _open(self) -> tuple[RespConnection, Endpoint]:
        if self._endpoint.unix_path is not None:
            loop = asyncio.get_running_loop()
            connection = RespConnection(loop)
            await loop.create_unix_connection(lambda: connection, self._endpoint.unix_path)
            return connection, self._endpoint
        server, first = await self._primary.find(), self._next_address
        self._next_address += 1  # if this attempt hangs, the fresh one begins with the next address
        addresses = await self._names.addresses(server.host, server.port)
        self._dialled = server, addresses
        connection, self._next_address = await dial(server, addresses, first)
        return connection, server
