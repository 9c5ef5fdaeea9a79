"""The first moments of the text console, before anything that takes time is imported: the standard library only."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import textwrap
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import FrameType
from typing import IO, Any, Final, NoReturn

TITLE: Final = "companion · Starting: what you type is kept. /help lists commands, Ctrl-D leaves."
GOODBYE: Final = "Goodbye."
HELP: Final = """Usage: companion console [--log-level LEVEL] [--audio]
       python agent.py console --text [--log-level LEVEL]

Talk with the companion in this terminal, or through a pipe: echo hi | companion console.
/help in a conversation lists its commands.

  --log-level LEVEL  the least level of the log that is shown, such as DEBUG or INFO
  --audio            talk by microphone and loudspeaker
"""
_NARROW: Final = 80
"""Columns where the terminal does not say how many it has."""
_STAND_INS: Final = str.maketrans(
    {"·": "-", "❯": ">", "●": "*", "⚙": "+", "…": "...", "→": "->", "–": "-", "—": "-"}
    | dict.fromkeys("“”„", '"')
    | dict.fromkeys("‘’", "'")
)
"""Signs for those that an encoding does not have."""
_left: Final[list[bool]] = []
_at_the_end = ExitStack()
atexit.register(_at_the_end.close)


def wants_text(arguments: Sequence[str]) -> bool:
    """Whether a command line (``sys.argv``) asks for the text console: ``console`` with ``--text``."""
    words = arguments[1:]
    return words[:1] == ["console"] and "--text" in words and "--help" not in words


def text_by_default(arguments: Sequence[str]) -> list[str]:
    """A command line of ``companion`` in LiveKit's words: its ``console`` is in text, unless ``--audio`` is given."""
    words = list(arguments)
    if words[1:2] != ["console"] or {"--text", "--help"} & set(words):
        return words
    return [word for word in words if word != "--audio"] if "--audio" in words else [*words, "--text"]


def begin(arguments: Sequence[str]) -> None:
    """Where ``arguments`` ask for the text console, show its title and keep what is typed ahead.

    Args:
        arguments: the command line, ``sys.argv``.

    Raises:
        SystemExit: it has an option that the text console does not have, or asks what the console is.
    """
    if arguments[1:2] == ["console"] and "--help" in arguments:
        write(HELP)
        raise SystemExit(0)
    if not wants_text(arguments):
        return
    _check(arguments[2:])
    # What cannot be shown is replaced: a name with an accent ends no conversation in a terminal that knows only ASCII.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGINT, _leave_early)
    if interactive():
        _keep_typed_ahead(sys.stdin.fileno())
    if is_terminal(sys.stdout):
        title = "\n".join(textwrap.wrap(encodable(TITLE), max(columns() - 1, 10)))
        write(f"{title}\n" if plain() else f"\x1b[2m{title}\x1b[0m\n")


def _check(words: Sequence[str]) -> None:
    given = iter(words)
    for word in given:
        if word == "--log-level":
            next(given, None)
        elif word != "--text" and not word.startswith("--log-level="):
            raise SystemExit(f"companion: a console in text has the option --log-level, and not {word!r}")


def is_terminal(stream: IO[Any] | None) -> bool:
    """Whether a standard stream is there, and is a terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def interactive() -> bool:
    """Whether there can be a prompt: a terminal on both sides, in which the cursor can be moved."""
    dumb = os.environ.get("TERM", "dumb") in ("dumb", "unknown", "") and sys.platform != "win32"
    return not dumb and is_terminal(sys.stdin) and is_terminal(sys.stdout)


def plain() -> bool:
    """Whether the output is without colour and emphasis: ``NO_COLOR``, or no terminal that knows them."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "dumb") == "dumb" or not is_terminal(sys.stdout)


def columns() -> int:
    """The present width of the terminal. Not of ``COLUMNS``, which does not follow when the window is resized."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or _NARROW
    except (OSError, ValueError, AttributeError):
        return _NARROW


def encodable(text: str) -> str:
    """``text`` with signs in place of those that the terminal's encoding does not have."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = text.translate(_STAND_INS)
    except LookupError:
        pass
    return text


def write(text: str) -> None:
    """Write to standard output at once. A reader that has gone away is no error: there is nothing left to show it."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.write(text)
        sys.stdout.flush()


def note_left() -> None:
    """Note that the person leaves: what they type from now on is for the shell.

    Where the console ends by itself, what was typed ahead was for the companion, and a shell must not execute it.
    """
    _left.append(True)


def leave_now(code: int) -> NoReturn:
    """End the process without waiting for anything, and leave the terminal as it was."""
    _at_the_end.close()
    os._exit(code)


def _keep_typed_ahead(descriptor: int) -> None:
    """Read keys as they come, and echo none: the prompt shows them when it is there.

    A terminal in its usual mode would mix them with the output, and would take Ctrl-D for the end of a line.
    """
    if sys.platform == "win32":
        return
    import termios

    try:
        usual = termios.tcgetattr(descriptor)
        quiet = termios.tcgetattr(descriptor)
        quiet[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    except termios.error:
        return

    def restore() -> None:
        with suppress(termios.error):  # it is gone
            if not _left:
                termios.tcflush(descriptor, termios.TCIFLUSH)
            termios.tcsetattr(descriptor, termios.TCSANOW, usual)

    _at_the_end.callback(restore)


def _leave_early(_: int, __: FrameType | None) -> None:
    """Ctrl-C while LiveKit is being imported: nothing is open yet that would have to be closed."""
    write(f"\n{GOODBYE}\n")
    leave_now(0)
