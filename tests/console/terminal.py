"""The console in a real terminal, and through a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Final

import pexpect
import pyte
from pexpect.fdpexpect import fdspawn

AGENT: Final = Path(__file__).parents[2] / "agent.py"
PATIENCE: Final = 40.0  # seconds
CTRL_C: Final = "\x03"
CTRL_D: Final = "\x04"
READY: Final = "\u276f "
"""The prompt."""
# The terminal must control the session, or Ctrl-C would have no effect.
ON_TERMINAL: Final = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """A terminal with a command running in it: its screen, and input."""

    def __init__(self, *arguments: str, cwd: Path, env: dict[str, str], columns: int = 300, lines: int = 60) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.everything = b""
        # Not pexpect.spawn, which forks: in a process with threads that may deadlock.
        self.keyboard, inside = os.openpty()
        termios.tcsetwinsize(inside, (lines, columns))
        self.usual = termios.tcgetattr(inside)
        # Use the terminal's size, not the one that readline puts into the environment on import.
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *(arguments or (str(AGENT), "console", "--text"))],
            cwd=cwd,
            env={**inherited, "TERM": "xterm-256color", **env},
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
        )
        self._inside = inside  # open, so that the terminal's modes can be read when the command has ended
        self._terminal = fdspawn(self.keyboard)

    @property
    def screen(self) -> str:
        """What is on the screen, without the spaces at the ends of its lines."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    @property
    def words(self) -> str:
        """What is on the screen, as one line."""
        return " ".join(self.screen.split())

    @property
    def modes(self) -> list[object]:
        """How the terminal treats what is typed."""
        return termios.tcgetattr(self._inside)

    def press(self, keys: str | bytes) -> None:
        """Type."""
        self._terminal.send(keys)

    def say(self, words: str) -> None:
        """Type a line, and wait until the console has taken it."""
        self.press(f"{words}\r")
        self.wait_for(f"{READY}{words}\n")

    def resize(self, columns: int, lines: int) -> None:
        """Make the window another size. The kernel tells the command."""
        self._screen.resize(lines, columns)
        termios.tcsetwinsize(self._inside, (lines, columns))

    def wait_for(self, text: str, *, times: int = 1) -> None:
        """Wait until ``text`` is on the screen, so many times, wherever its lines break."""
        give_up = time.monotonic() + PATIENCE
        while self.screen.count(text) < times and self.words.count(text) < times:
            assert time.monotonic() < give_up, f"waited for {text!r}\n{self.screen}"
            assert self._read(), f"it ended before {text!r}\n{self.screen}"

    def end(self) -> int:
        """Wait for the end of the command and return its exit code."""
        give_up = time.monotonic() + PATIENCE
        while self._process.poll() is None:
            self._read()
            assert time.monotonic() < give_up, f"it does not end\n{self.screen}"
        while self._read(0):
            pass
        return self._process.returncode

    def kill(self) -> None:
        """End the command, if it has not ended."""
        self._process.kill()
        self._process.wait()
        self._terminal.close()
        os.close(self._inside)

    def _read(self, timeout: float = 0.05) -> bool:
        """Read what there is, waiting briefly; return whether there may be more."""
        try:
            data = self._terminal.read_nonblocking(65536, timeout)
        except pexpect.TIMEOUT:
            return timeout > 0 and self._process.poll() is None
        except pexpect.EOF:
            return False
        self.everything += data
        self._stream.feed(data)
        return True


def pipe(text: str | bytes, *, cwd: Path, env: dict[str, str], arguments: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Run the console with ``text`` as its input: its exit code, what it wrote, and its errors."""
    ran = subprocess.run(
        [sys.executable, *(arguments or (str(AGENT), "console", "--text"))],
        cwd=cwd,
        env={**os.environ, **env},
        input=text.encode() if isinstance(text, str) else text,
        capture_output=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    return ran.returncode, ran.stdout.decode(), ran.stderr.decode()
