"""The commands that clients send to a redis-server, by MONITOR."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from types import TracebackType
from typing import Self
from uuid import uuid4

# +1700000000.123456 [0 127.0.0.1:50000] "GET" "user:123:profile"; from a script the address is "lua"
_LINE = re.compile(rb'^\+(\d+\.\d+) \[\d+ (\S+)\] "((?:[^"\\]|\\.)*)"(.*)$')


class CommandMonitor:
    """Records commands from ``async with`` on, without those that scripts execute inside the server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._mark = uuid4().hex

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(b"MONITOR\r\n")
        await self._reader.readline()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def commands(self) -> list[tuple[float, str]]:
        """Time of the server (seconds) and text of each command sent until now."""
        _, marker = await asyncio.open_connection("127.0.0.1", self._port)
        marker.write(f"ECHO {self._mark}\r\n".encode())
        seen = []
        while True:
            line = await self._reader.readline()
            if self._mark.encode() in line:
                marker.close()
                return seen
            if (parts := _LINE.match(line.strip())) and parts[2] != b"lua":
                text = (parts[3].upper() + parts[4].replace(b'"', b"")).decode(errors="replace")
                seen.append((float(parts[1]), text))

    async def kinds(self) -> Counter[str]:
        """Number of commands sent until now, by name."""
        return Counter(text.partition(" ")[0] for _, text in await self.commands())
