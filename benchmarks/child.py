"""Another process of this run: started, spoken with in lines of JSON, and gone when its block ends."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_ROOT = Path(__file__).parent.parent
_LONGEST = 60.0  # seconds until a child that says nothing is given up
_LINE = 64 << 20  # bytes of one answer at most


class Child:
    """``python -m benchmarks.{module} args...``."""

    def __init__(self, module: str, *args: str) -> None:
        self._command = (sys.executable, "-m", f"benchmarks.{module}", *args)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, cwd=_ROOT, limit=_LINE
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._running
        if process.returncode is None:
            process.kill()
        await process.wait()

    @property
    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    def say(self, message: Any) -> None:
        """Send a message."""
        stdin = self._running.stdin
        assert stdin is not None
        stdin.write(json.dumps(message).encode() + b"\n")

    async def hear(self) -> Any:
        """Its next message. Raises RuntimeError when it has ended, TimeoutError when it says nothing."""
        stdout = self._running.stdout
        assert stdout is not None
        async with asyncio.timeout(_LONGEST):
            line = await stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._command[1:4])} ended without an answer")
        return json.loads(line)

    async def ask(self, message: Any) -> Any:
        """Send a message and wait for the answer."""
        self.say(message)
        return await self.hear()


def tell(message: Any) -> None:
    """In the child: send a message."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def listen() -> asyncio.StreamReader:
    """In the child: what the parent says, line by line."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader
