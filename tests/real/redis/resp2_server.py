"""A proxy that refuses some commands, in front of a real server: as servers before version 6 and many proxies do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import hiredis

UNKNOWN = "ERR unknown command `HELLO`, with args beginning with: "


def without_resp3(port: int, words: str = UNKNOWN) -> AbstractAsyncContextManager[int]:
    """A Redis without RESP3: HELLO is refused in these words."""
    return refusing(port, {"HELLO": words})


@asynccontextmanager
async def refusing(
    port: int, errors: Mapping[str, str], host: str = "127.0.0.1", at: int = 0, *, hang_up: Container[str] = ()
) -> AsyncIterator[int]:
    """A relay to 127.0.0.1:``port``. Yields its port on ``host``.

    Args:
        port: of the server.
        errors: what it answers, by command.
        host: where it listens.
        at: its port, 0 for a free one.
        hang_up: the commands over which it ends the connection, with no answer to those before, as twemproxy does.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
            down = asyncio.create_task(_copy(server_reader, writer))
            try:
                await _commands(reader, server_writer, errors, hang_up)
            finally:
                server_writer.close()
                down.cancel()
        except (OSError, asyncio.CancelledError):
            pass  # one side is closed, or the relay ends
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, host, at)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _commands(
    reader: asyncio.StreamReader, up: asyncio.StreamWriter, errors: Mapping[str, str], hang_up: Container[str]
) -> None:
    """Forward commands. For a refused one the server runs a script with that error, so that the replies keep order."""
    parser = hiredis.Reader(notEnoughData=Ellipsis)
    while data := await reader.read(1 << 16):
        parser.feed(data)
        while (command := parser.gets()) is not Ellipsis:
            if (name := command[0].decode().upper()) in hang_up:
                return
            if (error := errors.get(name)) is not None:
                command = [b"EVAL", b"return redis.error_reply(ARGV[1])", b"0", error]
            up.write(hiredis.pack_command(tuple(command)))
        await up.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()
