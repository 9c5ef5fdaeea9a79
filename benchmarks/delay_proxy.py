"""A proxy that delays a server's replies, as a process of its own: ``delay_proxy PORT LEAST MOST SEED``.

Replies are delayed by a random time between LEAST and MOST seconds, in order. The process sends its port.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable

from benchmarks.child import reply


async def main(port: int, least: float, most: float, seed: int) -> None:
    """Listen on 127.0.0.1 until killed."""
    rng = random.Random(seed)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            _forward(reader, server_writer, lambda: 0.0),
            _forward(server_reader, writer, lambda: rng.uniform(least, most)),
        )

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    reply(listener.sockets[0].getsockname()[1])
    await listener.serve_forever()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: Callable[[], float]) -> None:
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def receive() -> None:
        chunk = b"-"
        while chunk:
            try:
                chunk = await reader.read(1 << 16)
            except OSError:
                chunk = b""
            chunks.put_nowait((loop.time() + delay(), chunk))

    receiving = asyncio.create_task(receive())
    while True:
        due, chunk = await chunks.get()
        await asyncio.sleep(max(0.0, due - loop.time()))
        if not chunk:
            break
        writer.write(chunk)
    writer.close()
    await receiving


if __name__ == "__main__":
    where, least, most, seed = sys.argv[1:]
    asyncio.run(main(int(where), float(least), float(most), int(seed)))
