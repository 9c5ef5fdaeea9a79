"""The person's lines at a terminal: a prompt with history, editing and paste."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.input.defaults import create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.output.defaults import create_output

from . import start
from .screen import PROMPT
from .typed import LATIN_1, encoding_of_input


class Keyboard:
    """A prompt at the terminal.

    Args:
        waiting: how many lines wait for an answer, that of the present one included.
        interrupt: called at Ctrl-C while an answer is awaited.
        unfinished: the lines of a text that is not complete, which are above the prompt.
    """

    def __init__(
        self, waiting: Callable[[], int], interrupt: Callable[[], None], unfinished: Callable[[], list[str]]
    ) -> None:
        self._waiting, self._unfinished = waiting, unfinished
        keys = KeyBindings()

        @keys.add("c-c", eager=True)
        def _(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.reset()
            elif waiting():
                interrupt()
            else:
                event.app.exit(exception=KeyboardInterrupt(), style="class:aborting")

        self._session: PromptSession[str] = PromptSession(
            self._message,
            history=InMemoryHistory(),
            key_bindings=keys,
            erase_when_done=True,  # the screen shows a line when it is sent
            reserve_space_for_menu=0,
            prompt_continuation="  ",
            color_depth=ColorDepth.DEPTH_1_BIT if start.plain() else None,
            input=_input(),
            output=_output(),
        )

    async def line(self) -> str:
        """The next line.

        Raises:
            EOFError: Ctrl-D at an empty line, or the terminal is gone.
            KeyboardInterrupt: Ctrl-C at an empty line.
        """
        return await self._session.prompt_async(handle_sigint=False)

    def redraw(self) -> None:
        """Show the prompt as it is now."""
        self._session.app.invalidate()

    def recall(self, lines: Sequence[str]) -> None:
        """Have ``lines`` in the history, the oldest first, before what was typed."""
        self._replace_history([*lines, *self._session.history.get_strings()])

    def forget(self) -> None:
        """Forget what was typed: it was another person's, or is erased."""
        self._replace_history([])

    def _replace_history(self, lines: Sequence[str]) -> None:
        typed = self._session.default_buffer
        self._session.history = typed.history = InMemoryHistory(lines)
        typed.reset(typed.document)  # what is being typed stays
        self.redraw()  # which loads it

    def _message(self) -> StyleAndTextTuples:
        waiting = self._waiting()
        above: StyleAndTextTuples = [("", f"{line}\n") for line in self._unfinished()]
        if not waiting:
            return [*above, ("ansicyan", start.encodable(f"{PROMPT} "))]
        return [*above, ("ansibrightblack", start.encodable(f"{'…' if waiting == 1 else f'… +{waiting - 1}'} "))]


def _input() -> Input:
    keys = create_input()
    if hasattr(keys, "stdin_reader"):  # not on Windows
        from prompt_toolkit.input.posix_utils import PosixStdinReader

        keys.stdin_reader = PosixStdinReader(sys.stdin.fileno(), errors=LATIN_1, encoding=encoding_of_input())
    # What is shown above the prompt asks for no input: in the terminal's usual mode, a key that is pressed meanwhile
    # would be echoed in the middle of it.
    keys.cooked_mode = nullcontext  # type: ignore[method-assign]  # of this one input, which has no option for it
    return keys


def _output() -> Output:
    output = create_output()
    if hasattr(output, "enable_cpr"):
        # Where the cursor is matters only to menus. A terminal that does not answer would get a warning, and one that
        # answers late would answer to the shell.
        output.enable_cpr = False
    return output
