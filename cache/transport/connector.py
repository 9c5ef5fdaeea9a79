"""Connects and reconnects, without ever being stuck in one attempt.

After a loss an attempt begins at once; after 10 to 100 ms if the server refuses connections or is loading; after a
fifth of a second if it rejects us; and the longer that lasts, the longer the pause (``handshake.backoff``). A hanging
attempt is not waited for: the oldest may take ``connect_timeout``, so that a slow TLS handshake succeeds, and beside it
runs a fresh one that is replaced every 200 ms (or twice the shortest connect time, if that is longer). So when a
network recovers, the first packet is at most 200 ms away, whatever the kernel's retransmission timer says, and there
are never more than two attempts. Racing attempts and rotating addresses follow the idea of Happy Eyeballs (RFC 8305).
"""

from __future__ import annotations

import asyncio
import errno
import math
import random
import socket
import ssl
from collections.abc import Callable, Sequence

from ..exceptions import CacheUnavailable, HandshakeFailed
from ..redis_url import Endpoint
from .connection import Argument, RespConnection
from .handshake import NOT_YET, REJECTED, backoff, commands, judge, other_protocol

_FRESH_ATTEMPT = 0.2  # seconds until an attempt is begun beside one that hangs
_BACKOFF = (0.01, NOT_YET)  # first and last pause in seconds, doubling, plus or minus a quarter at random
_STABLE = 1.0  # a connection that lasted so long resets the backoff
LOOKUP_EVERY = 1.0  # seconds between two name lookups
_LOOKUP_TIMEOUT = 0.1  # seconds an attempt waits for a lookup if it has an older result
_OTHER_PROTOCOL = (0.25, 5.0)  # seconds of failing after which a server is asked in the other protocol, first and again
_OTHER_TIMEOUT = 1.0


class Connector:
    """Makes connections to one endpoint, one after another.

    Args:
        endpoint: where Redis is.
        setup: commands sent in the handshake, before the connection is used. Each may be rejected.
        connect_timeout: seconds one attempt may take.
        max_in_flight: commands that may await a reply on a connection.
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
        self._connect_timeout, self._max_in_flight = connect_timeout, max_in_flight
        self._on_failed = on_failed
        self._failures, self._failing_since = 0, 0.0
        self._quickest = math.inf  # the minimum: the last may have waited for an outage to end
        self._addresses: list[str] = []
        self._looked_up = -math.inf
        self._lookup: asyncio.Task[list[str]] | None = None
        self._dropped_attempts: set[asyncio.Task[tuple[RespConnection, float]]] = set()
        self._next_address = 0
        self._silent = endpoint.unix_path is None  # the server has not answered in the protocol of the URL
        self._asking: asyncio.Task[str] | None = None
        self._other_protocol = ""  # why no attempt can succeed, if the server speaks only the other protocol
        self.unsupported = False

    async def connect(self, lived: float = math.inf) -> tuple[RespConnection, float]:
        """Attempt until a connection is made. Returns it and the loop time at which its handshake was sent.

        Args:
            lived: seconds the last connection lasted; after a short one the backoff continues.
        """
        loop = asyncio.get_running_loop()
        if lived >= _STABLE:
            self._failures, self._failing_since = 0, loop.time()
        next_at = loop.time() + (self._backoff() if self._failures else 0.0)
        self._failures += 1
        attempts: dict[asyncio.Task[tuple[RespConnection, float]], float] = {}  # loop time each began, oldest first
        ask_at = loop.time() + _OTHER_PROTOCOL[0]
        try:
            while True:
                now = loop.time()
                for attempt in [attempt for attempt, began in attempts.items() if now - began >= self._connect_timeout]:
                    del attempts[attempt]
                    self._drop(attempt)
                    self._on_failed(self._other_protocol or "no answer while connecting")
                if now >= ask_at and self._silent and self._addresses:
                    ask_at = now + _OTHER_PROTOCOL[1]
                    self._ask_in_the_other_protocol(loop)
                if now >= next_at:
                    if len(attempts) == 2:
                        self._drop(attempts.popitem()[0])
                    attempts[loop.create_task(self._attempt(loop))] = now
                    next_at = now + self._fresh_attempt_after()
                if not attempts:
                    await asyncio.sleep(next_at - now)
                    continue
                done, _ = await asyncio.wait(attempts, timeout=next_at - now, return_when=asyncio.FIRST_COMPLETED)
                for attempt in done:
                    error = attempt.exception()
                    if error is None:
                        self._quickest = min(self._quickest, loop.time() - attempts.pop(attempt))
                        self.unsupported, self._other_protocol = False, ""
                        return attempt.result()
                    del attempts[attempt]
                    next_at = loop.time() + backoff(self._failed(error), loop.time() - self._failing_since)
        finally:
            for attempt in attempts:
                self._drop(attempt)
            if self._asking is not None:
                self._asking.cancel()

    def _ask_in_the_other_protocol(self, loop: asyncio.AbstractEventLoop) -> None:
        """Find out, beside the attempts, whether the URL names the wrong protocol."""

        def answered(asking: asyncio.Task[str]) -> None:
            if not asking.cancelled() and asking.exception() is None:
                self._other_protocol = asking.result()
                if self._other_protocol:
                    self._on_failed(self._other_protocol)

        address = self._addresses[self._next_address % len(self._addresses)]
        asking = other_protocol(self._endpoint, address, _OTHER_TIMEOUT)
        self._asking = loop.create_task(asking, name="cache-other-protocol")
        self._asking.add_done_callback(answered)

    def _drop(self, attempt: asyncio.Task[tuple[RespConnection, float]]) -> None:
        """Cancel an attempt, also one that has just succeeded."""
        attempt.cancel()
        self._dropped_attempts.add(attempt)
        attempt.add_done_callback(self._dropped)

    def _dropped(self, attempt: asyncio.Task[tuple[RespConnection, float]]) -> None:
        self._dropped_attempts.discard(attempt)
        if not attempt.cancelled() and attempt.exception() is None:
            attempt.result()[0].lose("not needed")

    async def close(self) -> None:
        """Wait until every dropped attempt has ended. :meth:`connect` must have ended before."""
        if self._asking is not None:
            await asyncio.wait({self._asking})
        if self._lookup is not None:
            self._lookup.cancel()
            await asyncio.wait({self._lookup})
        if self._dropped_attempts:
            await asyncio.wait(self._dropped_attempts)

    def _fresh_attempt_after(self) -> float:
        """Seconds until an attempt is begun beside one that hangs."""
        if self._quickest == math.inf:
            return _FRESH_ATTEMPT
        return min(max(_FRESH_ATTEMPT, 2 * self._quickest), self._connect_timeout)

    def _backoff(self) -> float:
        first, last = _BACKOFF
        return min(first * 2.0 ** min(self._failures - 1, 10), last) * random.uniform(0.75, 1.25)

    def _failed(self, error: BaseException) -> float:
        """Report the failure. Returns the seconds until the next attempt."""
        pause = self._backoff()
        self._failures += 1
        answered = isinstance(error, HandshakeFailed | ssl.SSLCertVerificationError)
        self._silent = self._endpoint.unix_path is None and not answered
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
        elif isinstance(error, OSError):
            reason = f"cannot connect ({errno.errorcode.get(error.errno or 0, type(error).__name__)})"
        else:
            reason, pause = f"cannot connect ({type(error).__name__})", REJECTED
        self._on_failed((self._silent and self._other_protocol) or reason)
        return pause

    async def _attempt(self, loop: asyncio.AbstractEventLoop) -> tuple[RespConnection, float]:
        connection = await self._open(loop)
        try:
            sent = loop.time()
            connection.handshake_replies = await judge(connection.send_together(self._commands), self._setup_count)
        except BaseException as error:
            if isinstance(error, HandshakeFailed):
                self._next_address += 1  # of several addresses, this one may be a replica's
            await connection.end("not needed")
            raise
        return connection, sent

    async def _open(self, loop: asyncio.AbstractEventLoop) -> RespConnection:
        endpoint = self._endpoint

        def new_connection() -> RespConnection:
            return RespConnection(loop, self._max_in_flight)

        if endpoint.unix_path is not None:
            return (await loop.create_unix_connection(new_connection, endpoint.unix_path))[1]
        first = self._next_address
        self._next_address += 1  # if this attempt hangs, the fresh one begins with the next address
        addresses = await self._resolve(loop)
        error: OSError | None = None
        for offset in range(len(addresses)):
            address = addresses[(first + offset) % len(addresses)]
            tls = endpoint.ssl_context
            server = endpoint.host if tls is not None else None
            try:
                made = await loop.create_connection(
                    new_connection, address, endpoint.port, ssl=tls, server_hostname=server
                )
            except OSError as failed:
                error = failed
            else:
                self._next_address = first + offset
                return made[1]
        raise error or OSError("no address")

    async def _resolve(self, loop: asyncio.AbstractEventLoop) -> list[str]:
        """The addresses of the host. One lookup at a time: a hanging resolver must not exhaust the thread pool."""
        if self._lookup is None or (self._lookup.done() and loop.time() - self._looked_up > LOOKUP_EVERY):
            self._looked_up = loop.time()
            self._lookup = loop.create_task(_addresses(loop, self._endpoint.host, self._endpoint.port))
            self._lookup.add_done_callback(lambda task: task.cancelled() or task.exception())  # every attempt reads it
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
