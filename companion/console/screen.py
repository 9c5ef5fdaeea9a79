"""What the console shows: blocks of text, in their order, above the prompt where there is one."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import StringIO
from typing import Final

from prompt_toolkit.application import run_in_terminal
from rich.console import Console
from rich.text import Text

from . import start

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ASIDE: Final = re.compile(r"(\([^()]*\))\s+(.*)", re.DOTALL)
_LONG: Final = 100_000
"""Columns of what is no terminal: its reader breaks the lines."""
_UNFINISHED: Final = 4
"""Lines of a text that is not complete: the prompt must stay in the window."""
MARK: Final = "●"
PROMPT: Final = "❯"


class Screen:
    """Shows blocks one after the other. Its methods may be called from any thread.

    Args:
        prompted: whether a prompt is on the screen, above which the blocks are shown.
    """

    def __init__(self, *, prompted: bool) -> None:
        self._prompted = prompted
        self._growing = ""
        self._redraw: Callable[[], None] = lambda: None
        self._loop = asyncio.get_running_loop()
        self._blocks: asyncio.Queue[_Block | None] = asyncio.Queue()
        self._showing = asyncio.create_task(self._show(), name="screen")

    def person(self, text: str) -> None:
        """What the person said."""
        self._add(Text(f"{PROMPT} ", "cyan"), Text(clean(text)), gap=True)

    def companion(self, text: str) -> None:
        """What the companion said. Brackets at its beginning, as of the offline voice's note, are an aside."""
        found = _ASIDE.fullmatch(text := clean(text))
        aside, said = found.groups() if found is not None else ("", text)
        body = Text(aside, "dim").append("\n" if aside else "", "not dim").append(said, "not dim")
        self._add(Text(f"{MARK} ", "green"), body)

    def growing(self, text: str) -> None:
        """What the companion has said of a text so far: shown above the prompt until the text is complete."""
        self._growing = text
        if self._prompted:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._redraw)

    def unfinished(self) -> list[str]:
        """The last lines of a text that is not complete."""
        if not self._growing.strip():
            return []
        shown = render(Text(f"{MARK} "), Text(clean(self._growing)), styled=False).splitlines()
        return shown[-_UNFINISHED:]

    def redraw_with(self, redraw: Callable[[], None]) -> None:
        """Redraw the prompt by ``redraw`` where a text grows."""
        self._redraw = redraw

    def tool(self, name: str, arguments: str, output: str) -> None:
        """One tool call, folded into one line."""
        folded = " ".join(clean(f"{name} {_short(arguments)} → {_short(output)}").split())
        line = Text(folded, "dim")
        if start.is_terminal(sys.stdout):
            line.truncate(max(start.columns() - 5, 10), overflow="ellipsis")
        self._add(Text("  ⚙ ", "dim cyan"), line)

    def note(self, text: str) -> None:
        """Something that the console itself says."""
        self._add(Text("  "), Text(clean(text), "dim"))

    def warning(self, text: str) -> None:
        """Something that is not as it should be."""
        self._add(Text("  "), Text(clean(text), "yellow"))

    def raw(self, text: str) -> None:
        """Text to copy, without margin."""
        self._add(Text(""), Text(clean(text)))

    async def close(self) -> None:
        """Show what has been given, and end."""
        self._loop.call_soon(self._blocks.put_nowait, None)  # behind what was given before, which comes so too
        await asyncio.wait({self._showing})

    def _add(self, mark: Text, body: Text, *, gap: bool = False) -> None:
        block = _Block(mark, body, gap)
        with suppress(RuntimeError):  # the loop is closed: a log line of the very end
            self._loop.call_soon_threadsafe(self._blocks.put_nowait, block)

    async def _show(self) -> None:
        while (block := await self._blocks.get()) is not None:
            text = render(block.mark, block.body, gap=block.gap)
            if self._prompted:
                await run_in_terminal(partial(start.write, text))
            else:
                start.write(text)


@dataclass(frozen=True, slots=True)
class _Block:
    mark: Text
    body: Text
    gap: bool


def render(mark: Text, body: Text, *, gap: bool = False, styled: bool = True) -> str:
    """``body`` behind ``mark``, wrapped at the present width of the terminal, as the terminal takes it."""
    terminal, plain = start.is_terminal(sys.stdout), start.plain() or not styled
    width = max(start.columns() - 1, 10) if terminal else _LONG
    console = Console(
        file=StringIO(), width=width, force_terminal=not plain, color_system=None if plain else "auto", highlight=False
    )
    margin = mark.cell_len
    lines = Text()
    for number, line in enumerate(body.wrap(console, width - margin)):
        line.rstrip()
        lines.append_text(mark if number == 0 else Text(" " * margin if line.plain else ""))
        lines.append_text(line)
        lines.append("\n")
    with console.capture() as captured:
        console.print(lines, end="", soft_wrap=True)
    return start.encodable(("\n" if gap else "") + captured.get())


def _short(text: str) -> str:
    """What a tool was given, or has answered, in short: its message, or its fields without JSON's signs."""
    try:
        fields = json.loads(text or "{}")
    except ValueError:
        return text
    if not isinstance(fields, dict):
        return text
    if isinstance(message := fields.get("message"), str):
        return message
    return ", ".join(
        f"{name}: {' · '.join(value.splitlines()) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in fields.items()
    )


def clean(text: str) -> str:
    """``text`` without what would move the cursor or change the terminal, and without half characters."""
    return _CONTROL.sub("", text.replace("\t", "    ")).encode("utf-8", "replace").decode()
