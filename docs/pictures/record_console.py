"""Records ``docs/pictures/console.svg``: two conversations in a real terminal, with no key and no Redis configured.

$ make pictures

A pseudo-terminal runs the console, pyte reads its screen, and rich draws it. Each line of the picture appears when it
appeared, pauses cut to ``LONGEST_PAUSE``; where pictures do not move, all lines are there.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final

import pexpect
import pyte
from pexpect.fdpexpect import fdspawn
from rich.console import Console
from rich.style import Style
from rich.text import Text

ROOT: Final = Path(__file__).parents[2]
PICTURE: Final = Path(__file__).with_name("console.svg")
COMMAND: Final = ("agent.py", "console", "--text")
COLUMNS, ROWS = 100, 200
PATIENCE: Final = 60.0
LONGEST_PAUSE: Final = 1.5
KEY_PAUSE: Final = 0.04
SETTLED: Final = 1.2
"""Seconds after which an answer that has begun is complete."""
CTRL_D: Final = "\x04"
ON_TERMINAL: Final = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""The terminal must control the session, or Ctrl-C has no effect."""
CONVERSATIONS: Final = (
    (("", "name?"), ("my name is Ada and I love chess", "Ada"), ("I moved to Oslo", "Oslo")),
    (("", "Ada"), ("what do you know about me", "chess")),
)
"""What is typed, and what is on the screen then."""


class Screen(pyte.Screen):
    """A screen on which faint text, which pyte does not know, is grey."""

    def select_graphic_rendition(self, *attributes: int, **options: bool) -> None:
        of_a_colour = {at + 1 for at, code in enumerate(attributes) if code in (38, 48)}  # "38;2;r;g;b"
        faint = (90 if code == 2 and at not in of_a_colour else code for at, code in enumerate(attributes))
        super().select_graphic_rendition(*faint, **options)


@dataclass
class Recording:
    """The screen of one run, and when each of its rows got its text."""

    screen: pyte.Screen = field(default_factory=lambda: Screen(COLUMNS, ROWS))
    changed: dict[int, float] = field(default_factory=dict)
    seen: list[str] = field(default_factory=lambda: [""] * ROWS)

    def note(self, now: float) -> None:
        """Note which rows have changed."""
        for row, text in enumerate(self.screen.display):
            if text.rstrip() != self.seen[row]:
                self.seen[row], self.changed[row] = text.rstrip(), now

    def lines(self) -> list[tuple[Text, float]]:
        """The rows down to the last that is not empty, each with the time of its last change."""
        last = max((row for row, text in enumerate(self.seen) if text), default=-1)
        return [(self._line(row), self.changed.get(row, 0.0)) for row in range(last + 1)]

    def _line(self, row: int) -> Text:
        line = Text()
        cells = (self.screen.buffer[row][column] for column in range(len(self.seen[row])))
        for style, run in groupby(cells, key=_style):
            line.append("".join(cell.data for cell in run), style)
        return line


class Run:
    """One run of the console in a terminal of its own."""

    def __init__(self, home: Path) -> None:
        self.recording = Recording()
        self._typed_at = 0.0
        self._stream = pyte.ByteStream(self.recording.screen)
        keyboard, inside = os.openpty()
        termios.tcsetwinsize(inside, (ROWS, COLUMNS))
        ours = ("REDIS", "CACHE", "COMPANION", "SUPABASE", "OPENAI", "LIVEKIT", "COLUMNS", "LINES", "NO_COLOR")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, str(ROOT / COMMAND[0]), *COMMAND[1:]],
            cwd=home.parent,
            env={**inherited, "TERM": "xterm-256color", "COLORTERM": "truecolor", "COMPANION_HOME": str(home)},
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
        )
        os.close(inside)
        self._terminal = fdspawn(keyboard)

    def wait_for(self, words: str) -> None:
        """Wait until a line that has come since the last call holds ``words``, and the rest of the answer is there."""
        give_up = time.monotonic() + PATIENCE
        while not any(words in self.recording.seen[row] for row in self._new_rows()):
            if time.monotonic() > give_up:
                raise SystemExit(f"{words!r} does not come:\n" + "\n".join(self.recording.seen).strip())
            self._read()
        settled = time.monotonic() + SETTLED
        while time.monotonic() < settled:
            self._read()

    def _new_rows(self) -> list[int]:
        return [row for row, at in self.recording.changed.items() if at >= self._typed_at]

    def type(self, words: str) -> None:
        """Type a line as a person does."""
        for key in words:
            self._terminal.send(key)
            self._read(KEY_PAUSE)
        self._typed_at = time.monotonic()
        self._terminal.send("\r")

    def end(self) -> None:
        """End the conversation, and wait for the end of the program."""
        self._terminal.send(CTRL_D)
        give_up = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < give_up:
            self._read()
        self._read()
        self._terminal.close()
        if self._process.wait(1) != 0:
            raise SystemExit(f"it ended with {self._process.returncode}")

    def _read(self, wait: float = 0.05) -> bool:
        try:
            data = self._terminal.read_nonblocking(65536, wait)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return False
        self._stream.feed(data)
        self.recording.note(time.monotonic())
        return True


def record() -> list[tuple[Text, float]]:
    """Hold the conversations; returns the lines of the picture, and when each appeared."""
    lines: list[tuple[Text, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for conversation in CONVERSATIONS:
            lines.append((Text.assemble(("$ ", "green"), ("make console", "bold")), time.monotonic()))
            run = Run(Path(folder) / "home")
            for typed, answer in conversation:
                if typed:
                    run.type(typed)
                run.wait_for(answer)
            run.end()
            lines += [*run.recording.lines(), (Text(), time.monotonic())]
    return lines[:-1]


def draw(lines: Sequence[tuple[Text, float]]) -> str:
    """The picture, in which each line appears at its time."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line, _ in lines:
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    svg = console.export_svg(title="companion", unique_id="console")
    svg = re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL)  # a picture on a page loads no font
    at, before, rules = 0.0, lines[0][1], []
    for row, (_, time_of) in enumerate(lines):
        at += max(0.0, min(time_of - before, LONGEST_PAUSE))
        before = max(before, time_of)
        rules.append(f"[clip-path='url(#console-line-{row})'] {{ animation: appear 1ms {at:.2f}s backwards; }}")
    style = "@keyframes appear { from { opacity: 0; } }\n@media (prefers-reduced-motion: no-preference) {\n"
    return svg.replace("</style>", f"{style}{chr(10).join(rules)}\n}}\n</style>", 1)


def _style(cell: pyte.screens.Char) -> Style:
    return Style(
        color=_colour(cell.fg), bgcolor=_colour(cell.bg), bold=cell.bold, italic=cell.italics, reverse=cell.reverse
    )


def _colour(name: str) -> str | None:
    """A colour of pyte's as rich knows it."""
    if name == "default":
        return None
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    return {"brown": "yellow"}.get(name, re.sub(r"^bright(?=[a-z])", "bright_", name))


if __name__ == "__main__":
    PICTURE.write_text(draw(record()), encoding="utf-8")
