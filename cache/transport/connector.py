"""Getting a wire: where Redis is, how to greet it, and how to keep trying without ever being stuck in one attempt.

After a loss an attempt begins at once; after 10 to 100 ms where the server refuses or is loading; after a fifth of a
second where it will not have us (see `_UNWANTED`). An attempt that hangs is not waited for: the eldest may take
`connect_timeout`, so a slow TLS handshake gets through, and beside it runs a fresh one that is replaced every 200 ms
(or twice what connecting took at best, if that is longer). So when a network comes back, the first packet is at most
200 ms away, whatever the kernel's own retry clock says, and there are never more than two attempts.
"""

from __future__ import annotations

import asyncio
import errno
import math
import random
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ..exceptions import CacheUnavailable, CommandRejected
from .connection import Argument, RespConnection, pack

_FRESH = 0.2
_REFUSED = (0.01, 0.08)  # first and last pause, doubling; plus or minus a quarter at random
# A wrong password, a certificate that is not accepted, a full connection table. When that is put right the cache is to
# be used again within 300 ms, so we ask often. It costs the server five connections a second for each process that it
# turns away, with a line in its ACL LOG or a handshake (0.3 ms with an ECDSA certificate, 1 ms with RSA), and us 1 ms.
_UNWANTED = 0.2
_UNSUPPORTED = 30.0
_NOT_YET_CODES = frozenset({"LOADING", "MASTERDOWN", "BUSY"})
_STEADY = 1.0  # a wire that lived so long has made up for earlier failures
_LOOKUP_AGE = 1.0  # names are looked up no more often than this
_LOOKUP_WAIT = 0.1  # and where an older answer is known, an attempt waits no longer than this for a new one


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where Redis is and who we are there. With `unix_path`, host, port and ssl_context are not used."""

    host: str = "localhost"
    port: int = 6379
    unix_path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    client_name: str | None = None

    def greeting(self, setup: Iterable[tuple[Argument, ...]]) -> list[bytes]:
        """The commands a new connection starts with, HELLO first, PING last."""
        hello: tuple[Argument, ...] = (b"HELLO", 3)
        if self.username or self.password:
            hello += (b"AUTH", self.username or "default", self.password or "")
        if self.client_name:  # here and not as CLIENT SETNAME: whoever may log in may say HELLO
            hello += (b"SETNAME", self.client_name)
        commands: list[tuple[Argument, ...]] = [hello]
        if self.db:
            commands.append((b"SELECT", self.db))
        return [pack(command) for command in (*commands, *setup, (b"PING",))]


class HandshakeFailed(Exception):
    """Redis answered the greeting, but not in a way that can be used. `pause`: seconds to leave it alone."""

    def __init__(self, reason: str, pause: float, *, unsupported: bool = False) -> None:
        super().__init__(reason)
        self.pause, self.unsupported = pause, unsupported


class Connector:
    """Makes wires to one endpoint, one after the other. `explain` is called with the reason of each failure."""

    def __init__(
        self,
        endpoint: Endpoint,
        setup: Sequence[tuple[Argument, ...]],
        connect_timeout: float,
        room: int,
        explain: Callable[[str], None],
    ) -> None:
        self._endpoint, self._greeting, self._setups = endpoint, endpoint.greeting(setup), len(setup)
        self._connect_timeout, self._room = connect_timeout, room
        self._explain = explain
        self._failures = 0
        self._quickest = math.inf  # the best, not the last: that one may have begun in an outage and waited for its end
        self._addresses: list[str] = []
        self._looked_up = -math.inf
        self._lookup: asyncio.Task[list[str]] | None = None
        self._leaving: set[asyncio.Task[tuple[RespConnection, float]]] = set()
        self._turn = 0  # which address the next attempt begins with
        self.unsupported = False  # the server answers, but is no single node that speaks RESP3

    async def connect(self, lived: float = math.inf) -> tuple[RespConnection, float]:
        """Tries until there is a wire; returns it and the loop time at which its greeting was sent.

        lived: seconds the last wire lasted. One that comes and goes is not asked for as fast as we can.
        """
        loop = asyncio.get_running_loop()
        if lived >= _STEADY:
            self._failures = 0
        next_at = loop.time() + (self._backoff() if self._failures else 0.0)
        self._failures += 1
        dials: dict[asyncio.Task[tuple[RespConnection, float]], float] = {}  # and when each began, eldest first
        try:
            while True:
                now = loop.time()
                for dial in [dial for dial, began in dials.items() if now - began >= self._connect_timeout]:
                    del dials[dial]
                    self._drop(dial)
                    self._explain("no answer while connecting")
                if now >= next_at:
                    if len(dials) == 2:
                        self._drop(dials.popitem()[0])
                    dials[loop.create_task(self._dial(loop))] = now
                    next_at = now + self._patience()
                if not dials:
                    await asyncio.sleep(next_at - now)
                    continue
                done, _ = await asyncio.wait(dials, timeout=next_at - now, return_when=asyncio.FIRST_COMPLETED)
                for dial in done:
                    error = dial.exception()
                    if error is None:
                        self._quickest = min(self._quickest, loop.time() - dials.pop(dial))
                        self.unsupported = False
                        return dial.result()
                    del dials[dial]
                    next_at = loop.time() + self._failed(error)
        finally:
            for dial in dials:
                self._drop(dial)

    def _drop(self, dial: asyncio.Task[tuple[RespConnection, float]]) -> None:
        """Cancels an attempt, also one that has just succeeded."""
        dial.cancel()
        self._leaving.add(dial)
        dial.add_done_callback(self._dropped)

    def _dropped(self, dial: asyncio.Task[tuple[RespConnection, float]]) -> None:
        self._leaving.discard(dial)
        if not dial.cancelled() and dial.exception() is None:
            dial.result()[0].lose("not needed")

    async def close(self) -> None:
        """Waits until the attempts that were dropped have ended. `connect` must have ended before."""
        if self._lookup is not None:
            self._lookup.cancel()
            await asyncio.wait({self._lookup})
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _patience(self) -> float:
        """Seconds until the next attempt is begun beside one that hangs."""
        if self._quickest == math.inf:
            return _FRESH
        return min(max(_FRESH, 2 * self._quickest), self._connect_timeout)

    def _backoff(self) -> float:
        first, last = _REFUSED
        return min(first * 2.0 ** min(self._failures - 1, 10), last) * random.uniform(0.75, 1.25)

    def _failed(self, error: BaseException) -> float:
        """Says why, in words that hold no credentials; returns the seconds until the next attempt."""
        pause = self._backoff()
        self._failures += 1
        if isinstance(error, HandshakeFailed):
            reason, pause = str(error), error.pause * random.uniform(0.8, 1.0)
            self.unsupported = error.unsupported
        elif isinstance(error, ssl.SSLCertVerificationError):
            reason, pause = "TLS certificate not accepted", _UNWANTED
        elif isinstance(error, ssl.SSLError):
            reason = "TLS handshake failed"
        elif isinstance(error, socket.gaierror):
            reason = "name lookup failed"
        elif isinstance(error, CacheUnavailable):
            reason = f"{error} while connecting"
        elif isinstance(error, OSError):
            reason = f"cannot connect ({errno.errorcode.get(error.errno or 0, type(error).__name__)})"
        else:
            reason, pause = f"cannot connect ({type(error).__name__})", _UNWANTED
        self._explain(reason)
        return pause

    async def _dial(self, loop: asyncio.AbstractEventLoop) -> tuple[RespConnection, float]:
        wire = await self._open(loop)
        try:
            sent = loop.time()
            await self._greet(wire)
        except BaseException:
            await wire.end("not needed")
            raise
        return wire, sent

    async def _open(self, loop: asyncio.AbstractEventLoop) -> RespConnection:
        endpoint = self._endpoint

        def wire() -> RespConnection:
            return RespConnection(loop, self._room)

        if endpoint.unix_path is not None:
            return (await loop.create_unix_connection(wire, endpoint.unix_path))[1]
        turn = self._turn
        self._turn += 1  # if this attempt hangs, the one beside it begins with the next address
        addresses = await self._resolve(loop)
        error: OSError | None = None
        for offset in range(len(addresses)):
            address = addresses[(turn + offset) % len(addresses)]
            tls = endpoint.ssl_context
            server = endpoint.host if tls is not None else None
            try:
                made = await loop.create_connection(wire, address, endpoint.port, ssl=tls, server_hostname=server)
            except OSError as failed:
                error = failed
            else:
                self._turn = turn + offset
                return made[1]
        raise error or OSError("no address")

    async def _resolve(self, loop: asyncio.AbstractEventLoop) -> list[str]:
        """The addresses of the host. One lookup at a time: a resolver that hangs must not eat the thread pool."""
        if self._lookup is None or (self._lookup.done() and loop.time() - self._looked_up > _LOOKUP_AGE):
            self._looked_up = loop.time()
            self._lookup = loop.create_task(_addresses(loop, self._endpoint.host, self._endpoint.port))
            self._lookup.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen by all
        await asyncio.wait({self._lookup}, timeout=_LOOKUP_WAIT if self._addresses else None)
        if self._lookup.done():
            try:
                self._addresses = self._lookup.result()
            except OSError:
                if not self._addresses:
                    raise
        return self._addresses

    async def _greet(self, wire: RespConnection) -> None:
        hello, *others = wire.send_together(self._greeting)
        try:
            answer = await hello
        except CommandRejected as error:
            # The text is not passed on: an old server quotes the whole command, password included.
            if error.code == "NOPROTO" or "unknown command" in str(error):
                raise HandshakeFailed("no RESP3", _UNSUPPORTED, unsupported=True) from None
            raise _unwanted(error) from None
        if not isinstance(answer, dict) or answer.get(b"proto") != 3:
            raise HandshakeFailed("no RESP3", _UNSUPPORTED, unsupported=True)
        if answer.get(b"mode") in (b"cluster", b"sentinel"):
            raise HandshakeFailed("not a single node", _UNSUPPORTED, unsupported=True)
        *before, pong = others
        selected = len(before) - self._setups
        wire.set_up = await asyncio.gather(*before[selected:], return_exceptions=True)
        for reply in wire.set_up:
            if isinstance(reply, CommandRejected) and reply.code in _NOT_YET_CODES:
                raise _unwanted(reply)
        for other in (*before[:selected], pong):
            try:
                await other
            except CommandRejected as error:
                # Who is not allowed to PING has been answered all the same.
                if other is not pong or error.code != "NOPERM":
                    raise _unwanted(error) from None


def _unwanted(error: CommandRejected) -> HandshakeFailed:
    return HandshakeFailed(f"refused ({error.code})", _REFUSED[1] if error.code in _NOT_YET_CODES else _UNWANTED)


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[str]:
    try:  # a literal address needs no thread
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
