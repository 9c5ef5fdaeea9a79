"""What the terminal shows beside LiveKit's own text console: the greeting, and tool results as JSON.

The framework's console prints answers to what was typed, but not what the companion says first, and of a tool's
JSON only the first three values.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from livekit.agents import AgentSession, ConversationItemAddedEvent, FunctionToolsExecutedEvent, llm
from livekit.agents.cli import AgentsConsole
from livekit.agents.utils import is_dev_mode
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

NO_AUDIO = (
    "Talking aloud needs the PortAudio library (Debian and Ubuntu: sudo apt install libportaudio2). "
    "To type instead: python agent.py console --text"
)


def runs_locally() -> bool:
    """Whether this is a console or a development worker: these may start a private Redis."""
    return AgentsConsole.get_instance().enabled or is_dev_mode() or "--dev" in sys.argv


def text_console() -> Console | None:
    """The terminal of LiveKit's text console; None when this is not one (a room, audio, or ``lk agent console``)."""
    console = AgentsConsole.get_instance()
    terminal = getattr(console, "console", None)
    is_text = console.enabled and console.console_mode == "text"
    return terminal if is_text and isinstance(terminal, Console) else None


def show(session: AgentSession[Any], terminal: Console | None) -> None:
    """Print on ``terminal``, if there is one, what the framework leaves out of a text conversation."""
    if terminal is None:
        return
    greeted = False

    def on_item(event: ConversationItemAddedEvent) -> None:
        nonlocal greeted
        if greeted or not isinstance(event.item, llm.ChatMessage):
            return
        greeted = True  # from here on, everything the companion says answers something, and is shown
        if event.item.role == "assistant":
            terminal.print()
            terminal.print(Text.assemble(("  \u25cf ", "#6BCB77"), ("Agent", "bold #6BCB77")))
            for line in (event.item.text_content or "").split("\n"):
                _print(terminal, line, "dim" if line.startswith("(") else "")
            terminal.print()

    def on_tools(event: FunctionToolsExecutedEvent) -> None:
        for call, output in event.zipped():
            terminal.print()
            terminal.print(Text.assemble(("  \u2699 ", "#1FD5F9"), (f"{call.name} {call.arguments}", "dim")))
            _print(terminal, output.output)

    session.on("conversation_item_added", on_item)
    session.on("function_tools_executed", on_tools)


def _print(terminal: Console, text: str, style: str = "") -> None:
    terminal.print(Padding(Text(text, style=style), (0, 0, 0, 4), expand=False))


def quiet_by_default(arguments: Sequence[str]) -> None:
    """Keep the framework's log out of a conversation in the terminal, unless a log level was asked for.

    Args:
        arguments: the command line, ``sys.argv``.
    """
    if "console" not in arguments[1:2] or os.environ.get("LIVEKIT_LOG_LEVEL") or "--log-level" in arguments:
        return
    os.environ["LIVEKIT_LOG_LEVEL"] = "WARN"
    # It warns of things that are meant so here: no process kept warm, no turn detection in the cloud.
    logging.getLogger("livekit.agents").setLevel(logging.ERROR)


def allow_text_without_portaudio(arguments: Sequence[str] | None = None) -> None:
    """Let the text console start on a machine without PortAudio, and say at once where audio cannot.

    The framework imports ``sounddevice`` even for text, and that import fails where the library is missing. A
    stand-in takes its place that fails only when it is used, and then says what to do.

    Args:
        arguments: the command line; ``sys.argv`` where None.

    Raises:
        SystemExit: the command line asks for a console that listens and speaks.
    """
    try:
        importlib.import_module("sounddevice")
    except OSError:
        words = (sys.argv if arguments is None else arguments)[1:]
        if words[:1] == ["console"] and not {"--text", "--help"} & set(words):
            raise SystemExit(f"companion: {NO_AUDIO}") from None
        sys.modules["sounddevice"] = _NoAudio("sounddevice")


class _NoAudio(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        # Said here, because the framework, on its way out, loses what the exception says.
        print(NO_AUDIO, file=sys.stderr)
        raise ValueError(NO_AUDIO)
