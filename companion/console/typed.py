"""What is typed or piped, as text; and the lines of standard input where there is no prompt."""

from __future__ import annotations

import asyncio
import codecs
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Final

LATIN_1: Final = "companion-latin-1"
"""The error handler of a decoder that takes what is no UTF-8 for Latin-1: an old terminal's accents are letters."""

_AHEAD: Final = 100  # lines that are read before they are sent
_LONGEST: Final = 1 << 20  # bytes of a line; what is longer is broken


def decode(line: bytes, encoding: str = "utf-8") -> str:
    """A person's line as text; what is not in ``encoding`` is taken for Latin-1."""
    return line.decode(encoding, LATIN_1)


def _latin_1(problem: UnicodeError) -> tuple[str, int]:
    if not isinstance(problem, UnicodeDecodeError):
        raise problem
    return problem.object[problem.start : problem.end].decode("latin-1"), problem.end


codecs.register_error(LATIN_1, _latin_1)


def encoding_of_input() -> str:
    """The encoding of what is typed: the terminal's, where it names more than ASCII."""
    try:
        name = codecs.lookup(getattr(sys.stdin, "encoding", None) or "utf-8").name
    except LookupError:
        name = "utf-8"
    return "utf-8" if name == "ascii" else name


class Pipe:
    """The lines of standard input, where it is a pipe, a file, or a terminal that cannot have a prompt."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue(_AHEAD)
        # Not of the loop's executor, for whose threads the program would wait: this one may read for ever.
        threading.Thread(target=self._read, name="standard-input", daemon=True).start()

    async def line(self) -> str:
        """The next line.

        Raises:
            EOFError: there is none any more.
        """
        line = await self._lines.get()
        if line is None:
            self._lines.put_nowait(None)
            raise EOFError
        return line

    def redraw(self) -> None:
        """There is no prompt."""

    def recall(self, _: Sequence[str]) -> None:
        """There is no history."""

    def forget(self) -> None:
        """There is no history."""

    def _read(self) -> None:
        encoding = encoding_of_input()
        with suppress(RuntimeError, CancelledError):  # the loop is closed
            for line in _lines():
                self._put(decode(line, encoding).removeprefix("\ufeff").rstrip("\r"))
            self._put(None)

    def _put(self, line: str | None) -> None:
        asyncio.run_coroutine_threadsafe(self._lines.put(line), self._loop).result()


def _lines() -> Iterator[bytes]:
    """Not by ``sys.stdin``: a thread that waits in there holds a lock that the interpreter wants at its end."""
    rest = b""
    with suppress(OSError, ValueError, AttributeError):  # closed, or a terminal that is gone
        descriptor = sys.stdin.fileno()
        while data := os.read(descriptor, 65536):
            *whole, rest = (rest + data).split(b"\n")
            yield from whole
            if len(rest) > _LONGEST:
                yield rest
                rest = b""
    if rest:
        yield rest
