"""Another process that keeps a value and notes when it first sees each newer one: ``sightings PEER URL``.

Values are numbers that only grow. It says "ready" once it holds the first, and when told to stop it answers with
[number, seconds on the system's monotonic clock] for each number it saw.
"""

from __future__ import annotations

import asyncio
import sys
import time

from .child import listen, tell
from .peers import KEEPING

KEY = "user:123:profile"


async def main(peer: str, url: str) -> None:
    """Read until told to stop."""
    async with KEEPING[peer](url) as client:
        seen: list[tuple[int, float]] = []
        first = asyncio.Event()

        async def look() -> None:
            last = None
            while True:
                value = await client.get(KEY)
                if value != last:
                    last = value
                    seen.append((value, time.monotonic()))
                    first.set()
                await asyncio.sleep(0)  # the loop looks at its sockets between two reads

        looking = asyncio.create_task(look())
        await first.wait()
        tell("ready")
        parent = await listen()
        await parent.readline()
        looking.cancel()
        tell(seen)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
