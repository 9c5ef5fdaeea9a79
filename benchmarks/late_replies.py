"""A slow network in front of a server, as a process of its own: ``late_replies PORT LEAST MOST SEED``.

What the server sends reaches the client between LEAST and MOST seconds late, at random, in order. It says its port.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable

from .child import tell


async def main(port: int, least: float, most: float, seed: int) -> None:
    """Listen on 127.0.0.1 until killed."""
    choice = random.Random(seed)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            _pass_on(reader, server_writer, lambda: 0.0),
            _pass_on(server_reader, writer, lambda: choice.uniform(least, most)),
        )

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    tell(listener.sockets[0].getsockname()[1])
    await listener.serve_forever()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: Callable[[], float]) -> None:
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def receive() -> None:
        piece = b"-"
        while piece:
            try:
                piece = await reader.read(1 << 16)
            except OSError:
                piece = b""
            pieces.put_nowait((loop.time() + delay(), piece))

    receiving = asyncio.create_task(receive())
    while True:
        due, piece = await pieces.get()
        await asyncio.sleep(max(0.0, due - loop.time()))
        if not piece:
            break
        writer.write(piece)
    writer.close()
    await receiving


if __name__ == "__main__":
    where, least, most, seed = sys.argv[1:]
    asyncio.run(main(int(where), float(least), float(most), int(seed)))
