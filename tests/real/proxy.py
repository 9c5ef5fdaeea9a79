"""A TCP proxy that simulates a bad network: latency, split packets, black holes, resets, refused connections.

It obeys TCP: a connection never loses bytes in the middle. A connection that lost some in a black hole stays silent
after `heal()` too, as behind a NAT that dropped its state; otherwise later replies would be misaligned. The server's
side of it ends when the client has closed it and the black hole is over.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

Delay = float | tuple[float, float]

SPLIT_GAP = 0.0005  # seconds between two pieces, so that the receiver reads them separately
PIECE_LIMIT = 256  # pieces in flight in each direction of a connection before the sender is blocked


@dataclass(eq=False)
class _Link:
    """A client's connection and the corresponding one to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    lost_bytes: bool = False
    client_gone: bool = False


@dataclass(eq=False)
class Proxy:
    """Listens on 127.0.0.1:`port` and forwards to 127.0.0.1:`target_port`, with the faults configured.

    Delays are seconds, fixed or (least, most), for every piece, and may be changed at any time; order is kept.
    `split_replies` splits replies at random places. Random choices depend only on `seed`, the connection's number and
    its traffic. With `ssl_context` clients speak TLS to the proxy, and the proxy plainly to the server.
    """

    target_port: int
    seed: int = 1
    delay_to_server: Delay = 0.0
    delay_to_client: Delay = 0.0
    split_replies: bool = False
    ssl_context: ssl.SSLContext | None = None

    port: int = field(default=0, init=False)
    connections_total: int = field(default=0, init=False)
    bytes_to_server: int = field(default=0, init=False)
    bytes_to_client: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._listening: socket.socket | None = None
        self._reserved: socket.socket | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._forwarding = asyncio.Event()  # not set: a black hole
        self._flowing = asyncio.Event()
        self._forwarding.set()
        self._flowing.set()

    @property
    def connections_open(self) -> int:
        """Connections whose client has not disconnected."""
        return sum(not link.client_gone for link in self._links)

    async def __aenter__(self) -> Self:
        self._reserved = _bound_socket(0)
        self.port = self._reserved.getsockname()[1]
        await self.heal()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        self.reset_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._reserved:
            self._reserved.close()

    def blackhole(self) -> None:
        """Drop bytes and FINs in both directions from now on. Connections are still accepted."""
        self._forwarding.clear()

    def stall(self) -> None:
        """Hold all bytes back until `heal()`, which delivers them late, as after lost packets."""
        self._flowing.clear()

    def reset_all(self) -> int:
        """Reset every connection (RST) and return their number. New ones are accepted."""
        links = list(self._links)
        for link in links:
            _reset(link.client)
            if link.server:
                _reset(link.server)
        self._links.clear()
        return len(links)

    def refuse(self) -> None:
        """Refuse new connections; open ones continue. The port stays bound."""
        if self._listening:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None
            self._reserved = _bound_socket(self.port)

    async def heal(self) -> None:
        """End blackhole, stall and refuse. Delays and splitting stay as they are set."""
        self._forwarding.set()
        self._flowing.set()
        if self._reserved:
            self._listening, self._reserved = self._reserved, None
            self._listening.setblocking(False)
            self._listening.listen(100)
            asyncio.get_running_loop().add_reader(self._listening, self._accept, self._listening)

    def _accept(self, listening: socket.socket) -> None:
        # Not asyncio.start_server: what it has accepted when it is closed stays open and is never served.
        with suppress(OSError):  # the client is gone already
            connection, _ = listening.accept()
            connection.setblocking(False)
            task = asyncio.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: connection.close())

    async def _serve(self, connection: socket.socket) -> None:
        try:
            reader, writer = await _streams(connection, self.ssl_context)
        except OSError:
            return  # no TLS handshake
        self.connections_total += 1
        link = _Link(writer)
        self._links.add(link)
        name = f"{self.seed}:{self.connections_total}"
        try:
            server_reader, link.server = await asyncio.open_connection("127.0.0.1", self.target_port)
            up: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECE_LIMIT)
            down: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECE_LIMIT)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._receive(link, reader, up, random.Random(f"{name}:up"), False))
                pumps.create_task(self._receive(link, server_reader, down, random.Random(f"{name}:down"), True))
                pumps.create_task(self._deliver(link, up, link.server, False))
                pumps.create_task(self._deliver(link, down, writer, True))
        except* OSError:
            pass  # one side is closed or was never reached: close the other
        finally:
            _reset(writer)
            if link.server:
                _reset(link.server)
            self._links.discard(link)
        # Retrieve what they were lost with, or asyncio may report that nothing has.
        ends = [end.wait_closed() for end in (writer, link.server) if end]
        await asyncio.gather(*ends, return_exceptions=True)

    async def _receive(
        self,
        link: _Link,
        reader: asyncio.StreamReader,
        queue: asyncio.Queue[tuple[float, bytes]],
        choice: random.Random,
        from_server: bool,
    ) -> None:
        now = asyncio.get_running_loop().time
        while data := await reader.read(1 << 16):
            for piece in pieces(data, choice) if from_server and self.split_replies else [data]:
                await queue.put((now() + self._delay(choice, from_server), piece))
        link.client_gone = link.client_gone or not from_server
        await queue.put((now() + self._delay(choice, from_server), b""))

    def _delay(self, choice: random.Random, from_server: bool) -> float:
        delay = self.delay_to_client if from_server else self.delay_to_server
        return choice.uniform(*delay) if isinstance(delay, tuple) else delay

    async def _deliver(
        self,
        link: _Link,
        queue: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        from_server: bool,
    ) -> None:
        now = asyncio.get_running_loop().time
        while True:
            due, piece = await queue.get()
            if (wait := due - now()) > 0:
                await asyncio.sleep(wait)
            await self._flowing.wait()
            link.lost_bytes = link.lost_bytes or not self._forwarding.is_set()
            if not piece:
                break
            if link.lost_bytes:
                continue
            writer.write(piece)
            await writer.drain()
            if from_server:
                self.bytes_to_client += len(piece)
            else:
                self.bytes_to_server += len(piece)
            if from_server and self.split_replies:
                await asyncio.sleep(SPLIT_GAP)
        if not link.lost_bytes:
            writer.close()
            await writer.wait_closed()
        elif not from_server:  # the server keeps its side until it sends something: in a test, that may be never
            await self._forwarding.wait()
            _reset(link.client)
            _reset(writer)


def pieces(data: bytes, choice: random.Random) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        # Mostly small pieces: splits within a reply's first line and its CRLF matter most.
        end = start + (choice.randint(1, 8) if choice.random() < 0.5 else choice.randint(1, len(data)))
        yield data[start:end]
        start = end


def _bound_socket(port: int) -> socket.socket:
    """Bound, not listening: keeps the port, and connections to it are refused."""
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is; with it, pieces wait 40 ms.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


async def _streams(
    connection: socket.socket, ssl_context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The streams of an accepted connection."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, protocol = await loop.connect_accepted_socket(
        lambda: asyncio.StreamReaderProtocol(reader), connection, ssl=ssl_context
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN; harmless when it is closed already."""
    with suppress(OSError, RuntimeError):  # the socket, or the loop, is closed already
        if not writer.transport.is_closing():
            bare: socket.socket = writer.get_extra_info("socket")
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
