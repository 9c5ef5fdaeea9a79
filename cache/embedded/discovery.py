"""Whether a Redis answers at the default address, asked quickly and without a client."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlsplit

from ..settings import DEFAULT_URL

_WAIT: Final = 0.2  # seconds; a server on this machine answers in a fraction of that


async def redis_answers(url: str = DEFAULT_URL) -> bool:
    """Whether something that speaks Redis, and lets anybody in, listens at ``url``."""
    place = urlsplit(url)

    async def ping() -> bool:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()

    try:
        return await asyncio.wait_for(ping(), _WAIT)
    except (OSError, TimeoutError):
        return False
