"""A Sentinel that says what a test wants."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import hiredis


@asynccontextmanager
async def scripted(
    name: Callable[[], int | bytes | None],
    tls: ssl.SSLContext | None = None,
    epoch: int = 1,
    flags: str = "master",
    *,
    promoted: Callable[[], int | None] = lambda: None,
    listeners: list[asyncio.StreamWriter] | None = None,
    host: str = "127.0.0.1",
    at: int = 0,
) -> AsyncIterator[int]:
    """The port of a Sentinel that names this port of 127.0.0.1, sends these bytes, or is silent.

    Args:
        name: what it names.
        tls: for TLS.
        epoch, flags: what it says of that.
        promoted: the port of the server that it has made a primary in a failover; None if it refuses to say.
        listeners: collects the connections that subscribe.
        host, at: where it is.
    """

    def reply_to(command: list[bytes], named: int) -> bytes:
        if command[1] == b"GET-MASTER-ADDR-BY-NAME":
            return b"-NOPERM no\r\n" if (new := promoted()) is None else array("127.0.0.1", new)
        return array(*f"ip 127.0.0.1 port {named} flags {flags} config-epoch {epoch}".split())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        with suppress(ConnectionError, hiredis.ProtocolError):
            while received := await reader.read(65536):
                if received.startswith(b"PING"):
                    writer.write(b"-NOAUTH no\r\n")
                    continue
                commands.feed(received)
                while (command := commands.gets()) and (named := name()) is not None:
                    if listeners is not None and command[0] == b"SUBSCRIBE":
                        listeners.append(writer)
                    writer.write(named if isinstance(named, bytes) else reply_to(command, named))
        writer.close()

    async with await asyncio.start_server(serve, host, at, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]


def array(*items: str | int) -> bytes:
    """A reply."""
    encoded = [str(item).encode() for item in items]
    return b"*%d\r\n" % len(items) + b"".join(b"$%d\r\n%b\r\n" % (len(item), item) for item in encoded)


def url(ports: Sequence[int], scheme: str = "redis", options: str = "") -> str:
    return f"{scheme}+sentinel://{','.join(f'127.0.0.1:{port}' for port in ports)}/callers{options}"
