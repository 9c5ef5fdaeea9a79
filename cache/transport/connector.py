"""Makes the multiplexed connections: addresses, handshake, and how soon after a failure the next attempt begins.

After a loss an attempt begins at once; after 10 to 80 ms if the server refuses connections or is loading; after a fifth
of a second if it rejects us; and the longer that lasts, the longer the pause (``attempts.backoff``).
"""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial

from ..background import BackgroundTasks
from ..exceptions import CacheUnavailable, ConnectionLost, HandshakeFailed
from ..redis_url import Endpoint
from .attempts import Attempts
from .connection import Argument, RespConnection
from .handshake import REJECTED, ask_without_hello, commands, judge, other_protocol

_STABLE = 1.0  # a connection that lasted so long makes the pauses short again
LOOKUP_EVERY = 1.0  # seconds between two name lookups
_LOOKUP_TIMEOUT = 0.1  # seconds an attempt waits for a lookup if it has an older result
_OTHER_PROTOCOL = (0.25, 5.0)  # seconds of failing after which a server is asked in the other protocol, first and again
_OTHER_TIMEOUT = 1.0


class Connector:
    """Makes connections to one endpoint, one after another.

    Args:
        setup: commands sent in the handshake, before the connection is used. Each may be rejected.
        on_failed: called with the reason of each failed attempt; it holds no credentials.

    Attributes:
        unsupported: whether the server answers but does not speak RESP3, or is no single server.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        setup: Sequence[tuple[Argument, ...]],
        connect_timeout: float,
        max_in_flight: int,
        on_failed: Callable[[str], None],
    ) -> None:
        self._endpoint, self._commands, self._setup_count = endpoint, commands(endpoint, setup), len(setup)
        self._max_in_flight, self._on_failed = max_in_flight, on_failed
        self._background = BackgroundTasks()
        self._attempts = Attempts(
            self._attempt, connect_timeout, self._background, self._failed, discard=lambda late: late.lose("not needed")
        )
        self._addresses: list[str] = []
        self._looked_up = -math.inf
        self._lookup: asyncio.Task[list[str]] | None = None
        self._next_address = 0
        self._silent = endpoint.unix_path is None  # the server has not answered in the protocol of the URL
        self._other_protocol = ""  # why no attempt can succeed, if the server speaks only the other protocol
        self.unsupported = False

    async def connect(self, lived: float = math.inf) -> RespConnection:
        """Attempt until a connection is made. ``lived``: seconds the last one lasted; if few, the pauses stay long."""
        asking = self._background.spawn(self._ask_in_the_other_protocol(), name="cache-other-protocol")
        try:
            connection = await self._attempts.first(afresh=lived >= _STABLE)
        finally:
            asking.cancel()
        self.unsupported, self._other_protocol = False, ""
        return connection

    async def close(self) -> None:
        """Wait until every attempt has ended. :meth:`connect` must have ended before."""
        await self._background.cancel()

    async def _ask_in_the_other_protocol(self) -> None:
        """Find out, beside the attempts, whether the URL names the wrong protocol."""
        first, again = _OTHER_PROTOCOL
        await asyncio.sleep(first)
        while True:
            if self._silent and self._addresses:
                address = self._addresses[self._next_address % len(self._addresses)]
                self._other_protocol = await other_protocol(self._endpoint, address, _OTHER_TIMEOUT)
                if self._other_protocol:
                    self._on_failed(self._other_protocol)
            await asyncio.sleep(again)

    def _failed(self, error: BaseException) -> float:
        """Report the failure. Returns the seconds for which it asks until the next attempt."""
        answered = isinstance(error, HandshakeFailed | ssl.SSLCertVerificationError)
        self._silent = self._endpoint.unix_path is None and not answered
        pause = 0.0
        if isinstance(error, HandshakeFailed):
            reason, pause = str(error), error.pause
            self.unsupported = error.unsupported
        elif isinstance(error, ssl.SSLCertVerificationError):
            reason, pause = "TLS certificate not accepted", REJECTED
        elif isinstance(error, ssl.SSLError):
            reason = "TLS handshake failed"
        elif isinstance(error, socket.gaierror):
            reason = "name lookup failed"
        elif isinstance(error, CacheUnavailable):
            reason = f"{error} while connecting"
        else:
            code = errno.errorcode.get(getattr(error, "errno", None) or 0, type(error).__name__)
            reason, pause = f"cannot connect ({code})", 0.0 if isinstance(error, OSError) else REJECTED
        self._on_failed((self._silent and self._other_protocol) or reason)
        return pause

    async def _attempt(self) -> RespConnection:
        connection = await self._open()
        try:
            try:
                connection.greeted_at = connection.loop.time()
                connection.handshake_replies = await judge(connection.send_together(self._commands), self._setup_count)
            except ConnectionLost:
                connection = await self._open()
                await ask_without_hello(connection, self._endpoint, self._commands)
                raise
        except BaseException as error:
            if isinstance(error, HandshakeFailed):
                self._next_address += 1  # of several addresses, this one may be a replica's
            await connection.end("not needed")
            raise
        return connection

    async def _open(self) -> RespConnection:
        loop, endpoint = asyncio.get_running_loop(), self._endpoint
        new_connection = partial(RespConnection, loop, self._max_in_flight)
        if endpoint.unix_path is not None:
            return (await loop.create_unix_connection(new_connection, endpoint.unix_path))[1]
        first = self._next_address
        self._next_address += 1  # if this attempt hangs, the fresh one begins with the next address
        addresses = await self._resolve(loop)
        tls = endpoint.ssl_context
        error = OSError("no address")
        for position in range(first, first + len(addresses)):
            address = addresses[position % len(addresses)]
            try:
                _, connection = await loop.create_connection(
                    new_connection, address, endpoint.port, ssl=tls, server_hostname=endpoint.host if tls else None
                )
            except OSError as failed:
                error = failed
            else:
                self._next_address = position
                return connection
        raise error

    async def _resolve(self, loop: asyncio.AbstractEventLoop) -> list[str]:
        """The addresses of the host. One lookup at a time: a hanging resolver must not exhaust the thread pool."""
        if self._lookup is None or (self._lookup.done() and loop.time() - self._looked_up > LOOKUP_EVERY):
            self._looked_up = loop.time()
            looking_up = _addresses(loop, self._endpoint.host, self._endpoint.port)
            self._lookup = self._background.spawn(looking_up, name="cache-lookup")
        await asyncio.wait({self._lookup}, timeout=_LOOKUP_TIMEOUT if self._addresses else None)
        if self._lookup.done():
            try:
                self._addresses = self._lookup.result()
            except OSError:
                if not self._addresses:
                    raise
        return self._addresses


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[str]:
    try:  # a literal address needs no thread
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
