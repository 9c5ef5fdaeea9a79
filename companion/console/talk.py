"""Talks with the person at this terminal, or with a pipe, from the first greeting to the goodbye."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from ..store import StoreError
from . import commands, start
from .conversation import Ended
from .jobs import CannotStart, Entrypoint, Jobs
from .log import hide_log, show_log
from .orders import Orders
from .screen import Screen
from .typed import Pipe

logger = logging.getLogger("companion")
_AHEAD: Final = 100
"""Lines that wait for their answers; a pipe is read no further."""
KEEPING: Final = "Keeping what was said. Ctrl-C twice leaves at once."
_WORTH_A_WORD: Final = 1.5
"""Seconds of the end after which the console says what it waits for."""
_THREAD_TIMEOUT: Final = 1.0


class Source(Protocol):
    """Where lines come from."""

    async def line(self) -> str:
        """The next line; raises EOFError, or KeyboardInterrupt, where there is none any more."""
        ...

    def redraw(self) -> None:
        """Show the prompt as it is now."""
        ...

    def recall(self, lines: Sequence[str]) -> None:
        """Have the lines of earlier conversations in the history, the oldest first."""
        ...

    def forget(self) -> None:
        """Forget the lines so far."""
        ...


def talk(entrypoint: Entrypoint, *, log_level: str = "WARNING") -> int:
    """Hold conversations with the person at this terminal, or with the lines of a pipe, until they leave.

    Args:
        entrypoint: the worker's; it holds each conversation.
        log_level: from which level on the log is shown.

    Returns:
        The exit code: 0 after a deliberate end, 1 where the console cannot start, or a pipe is not answered.
    """
    code = asyncio.run(_talk(entrypoint, log_level))
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join(_THREAD_TIMEOUT)
            if (
                thread.is_alive()
            ):  # a job that does not end, as in a tool that blocks: Python would wait for it for ever
                start.leave_now(code)
    return code


async def _talk(entrypoint: Entrypoint, log_level: str) -> int:
    screen = Screen(prompted=start.interactive())
    log = show_log(screen, log_level)
    try:
        return await _Talk(entrypoint, screen).hold()
    finally:
        hide_log(log)
        await screen.close()


class _Talk:
    def __init__(self, entrypoint: Entrypoint, screen: Screen) -> None:
        self._screen = screen
        self._jobs = Jobs(entrypoint, screen, self._failed, lambda lines: self._source.recall(lines))
        self._lines: asyncio.Queue[str | None] = asyncio.Queue(_AHEAD)
        self._busy = self._asking = False
        self._farewell = True
        self._interrupts = 0
        self._code = 0
        self._interactive = start.interactive()
        self._source = self._keyboard() if self._interactive else Pipe()
        self._orders = Orders(self._jobs, screen, self._ask, self._source.forget)

    def _keyboard(self) -> Source:
        from .keyboard import Keyboard

        keyboard = Keyboard(lambda: self._lines.qsize() + self._busy, self._stop_answer, self._screen.unfinished)
        self._screen.redraw_with(keyboard.redraw)
        return keyboard

    async def hold(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            with suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(number, self._on_signal, number)
        reading = asyncio.create_task(self._read(), name="console-lines")
        try:
            async with self._jobs.running():
                await self._jobs.begin()
                while (line := await self._next_line()) is not None:
                    await self._handle(line)
                self._jobs.left.set()
                start.note_left()
                await self._end()
        except CannotStart as problem:
            self._screen.warning(str(problem))
            return 1
        finally:
            reading.cancel()
            await asyncio.wait({reading})
        return self._code

    async def _end(self) -> None:
        """Say goodbye, and wait until what was said is kept."""
        later = asyncio.get_running_loop().call_later(_WORTH_A_WORD, self._say_what_it_waits_for)
        try:
            await self._jobs.end(farewell=self._farewell)
        finally:
            later.cancel()

    def _say_what_it_waits_for(self) -> None:
        if self._interactive:
            self._screen.note(KEEPING)

    async def _handle(self, line: str) -> None:
        """Do what a line asks for, or let the companion answer it."""
        self._busy, self._interrupts = True, 0
        self._source.redraw()
        self._screen.person(line)
        order = commands.command(line)
        try:
            if order is None:
                await self._jobs.do(lambda conversation: conversation.answer(line))
            elif order[0] in ("quit", "exit"):
                self._leave()
            else:
                await self._orders.obey(*order)
        except Ended:
            pass  # which has been said
        except StoreError as problem:
            self._screen.warning(f"the store failed: {problem}")
        except Exception:  # of a program's tool or model: the conversation goes on
            logger.exception("this line could not be handled")
            self._code = 0 if self._interactive else 1
        finally:
            self._busy = False
            self._source.redraw()

    def _failed(self, reason: str) -> None:
        if not self._interactive:
            self._screen.warning(reason)
            self._code, self._farewell = 1, False
            self._leave()
        elif not self._jobs.left.is_set():
            self._screen.warning(f"{reason} The next line begins another; Ctrl-D leaves.")

    # -- lines, and the end ----------------------------------------------------------------------------------------

    async def _next_line(self) -> str | None:
        """The person's next line; None where they have left."""
        if (line := await self._lines.get()) is None:
            self._lines.put_nowait(None)
        return line

    async def _ask(self) -> str | None:
        """The person's answer to a question of the console: empty after Ctrl-C, None where they leave."""
        self._busy, self._asking = False, True
        self._source.redraw()
        try:
            return await self._next_line()
        finally:
            self._busy, self._asking = True, False

    async def _read(self) -> None:
        """Take lines until there are no more."""
        try:
            while True:
                try:
                    line = (await self._source.line()).strip()
                except KeyboardInterrupt:
                    if not self._asking:
                        raise
                    self._lines.put_nowait("")
                    continue
                if line:
                    await self._lines.put(line)
                    self._source.redraw()
        except EOFError:
            if self._interactive and not self._busy and self._lines.empty():
                self._leave()
            else:  # what was said before is answered
                await self._lines.put(None)
        except KeyboardInterrupt:
            self._leave()

    def _leave(self) -> None:
        """Leave now: what is being answered is interrupted, what waits is dropped."""
        self._jobs.left.set()
        self._interrupts = 0
        while not self._lines.empty():
            self._lines.get_nowait()
        self._lines.put_nowait(None)
        if self._busy:
            self._jobs.interrupt()

    def _stop_answer(self) -> None:
        """Ctrl-C while an answer is awaited: stop it. Once more: leave."""
        self._interrupts += 1
        if self._interrupts > 1:
            self._leave()
        else:
            self._jobs.interrupt()

    def _on_signal(self, number: int) -> None:
        """Ctrl-C where there is no prompt; or the program is to end, which is no goodbye."""
        self._farewell = self._farewell and number == signal.SIGINT
        if not self._jobs.left.is_set():
            self._leave()
            return
        self._interrupts += 1
        if self._interrupts > 1:  # not by the second of two that were pressed at once
            start.leave_now(128 + number)
