"""A Redis without RESP3: a real server behind a relay that rejects HELLO, as servers before version 6 do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import hiredis

UNKNOWN = b"-ERR unknown command `HELLO`, with args beginning with: \r\n"


@asynccontextmanager
async def without_resp3(port: int) -> AsyncIterator[int]:
    """Yields the port of the relay to 127.0.0.1:`port`."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
            down = asyncio.create_task(_copy(server_reader, writer))
            try:
                await _commands(reader, server_writer, writer)
            finally:
                server_writer.close()
                down.cancel()
        except (OSError, asyncio.CancelledError):
            pass  # one side is closed, or the relay ends
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _commands(reader: asyncio.StreamReader, up: asyncio.StreamWriter, down: asyncio.StreamWriter) -> None:
    """Forward commands except HELLO. It is always the first, so its reply cannot overtake another."""
    parser = hiredis.Reader(notEnoughData=Ellipsis)
    while data := await reader.read(1 << 16):
        parser.feed(data)
        while (command := parser.gets()) is not Ellipsis:
            if command[0].upper() == b"HELLO":
                down.write(UNKNOWN)
            else:
                up.write(hiredis.pack_command(tuple(command)))
        await up.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()
