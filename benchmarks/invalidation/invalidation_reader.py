"""A process that reads a value continuously and records when each newer one appears: ``invalidation_reader PEER URL``.

Values are increasing numbers. The process sends "ready" after the first; the reply to any request is
[number, seconds on the system's monotonic clock] for each number read, and ends the process.
"""

from __future__ import annotations

import asyncio
import sys
import time

from benchmarks.child import open_requests, reply
from benchmarks.peers import LOCAL

KEY = "user:123:profile"


async def main(peer: str, url: str) -> None:
    """Read until the parent sends a request."""
    async with LOCAL[peer](url) as client:
        seen: list[tuple[int, float]] = []
        first = asyncio.Event()

        async def read_values() -> None:
            last = None
            while True:
                value = await client.get(KEY)
                if value != last:
                    last = value
                    seen.append((value, time.monotonic()))
                    first.set()
                await asyncio.sleep(0)  # let the loop poll its sockets between two reads

        reading = asyncio.create_task(read_values())
        await first.wait()
        reply("ready")
        requests = await open_requests()
        await requests.readline()
        reading.cancel()
        reply(seen)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
