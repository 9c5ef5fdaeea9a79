"""Child processes that exchange lines of JSON with their parent and are killed when their block ends."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_ROOT = Path(__file__).parent.parent
_TIMEOUT = 60.0  # seconds until a silent child counts as hung
_MAX_LINE_BYTES = 64 << 20  # maximum size of one message


class Child:
    """``python -m benchmarks.{module} args...``."""

    def __init__(self, module: str, *args: str) -> None:
        self._command = (sys.executable, "-m", f"benchmarks.{module}", *args)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, cwd=_ROOT, limit=_MAX_LINE_BYTES
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

    def send(self, message: Any) -> None:
        """Send a message."""
        stdin = self._running.stdin
        assert stdin is not None
        stdin.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> Any:
        """Wait for the next message.

        Raises:
            RuntimeError: the child has ended.
            TimeoutError: the child sent nothing in time.
        """
        stdout = self._running.stdout
        assert stdout is not None
        async with asyncio.timeout(_TIMEOUT):
            line = await stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._command[1:4])} ended without a reply")
        return json.loads(line)

    async def ask(self, message: Any) -> Any:
        """Send a message and wait for the reply."""
        self.send(message)
        return await self.receive()


def reply(message: Any) -> None:
    """In the child: send a message to the parent."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def open_requests() -> asyncio.StreamReader:
    """In the child: open the stream of the parent's messages, one per line."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader
