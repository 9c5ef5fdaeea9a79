"""What this process is to LiveKit's consoles: whether it is one, what its log shows, whether it can listen and speak.

The text console is :mod:`companion.console`. With microphone and loudspeaker, LiveKit's own is used.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from livekit.agents.cli import AgentsConsole
from livekit.agents.utils import is_dev_mode

from ..settings import Settings

TO_TYPE: Final = "To type instead: make console, or companion console"
NO_AUDIO: Final = (
    f"Talking aloud needs the PortAudio library (Debian and Ubuntu: sudo apt install libportaudio2). {TO_TYPE}"
)
NO_VOICE: Final = (
    "Talking aloud needs models that hear and speak: set OPENAI_API_KEY, or LIVEKIT_URL, LIVEKIT_API_KEY and "
    f"LIVEKIT_API_SECRET of LiveKit Cloud. {TO_TYPE}"
)
_DEVICES: Final = {"input": "microphone", "output": "loudspeaker"}
_LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL")


def runs_locally() -> bool:
    """Whether this is a console or a development worker: these may start a private Redis."""
    return AgentsConsole.get_instance().enabled or is_dev_mode() or "--dev" in sys.argv


def quiet_by_default(arguments: Sequence[str]) -> None:
    """Keep the framework's log out of a conversation in the terminal, unless a log level was asked for.

    Args:
        arguments: the command line, ``sys.argv``.
    """
    if "console" not in arguments[1:2] or os.environ.get("LIVEKIT_LOG_LEVEL") or _given_level(arguments):
        return
    os.environ["LIVEKIT_LOG_LEVEL"] = "WARN"
    # It warns of things that are meant so here: no process kept warm, no turn detection in the cloud.
    logging.getLogger("livekit.agents").setLevel(logging.ERROR)


def log_level(arguments: Sequence[str]) -> str:
    """The log level that a command line, or else the environment, asks for.

    Raises:
        SystemExit: there is none of that name.
    """
    level = (_given_level(arguments) or os.environ.get("LIVEKIT_LOG_LEVEL") or "WARN").upper()
    if level not in _LEVELS:
        raise SystemExit(f"companion: the log level must be one of {', '.join(_LEVELS)}, not {level[:20]!r}.")
    return {"TRACE": "DEBUG", "WARN": "WARNING"}.get(level, level)


def _given_level(arguments: Sequence[str]) -> str:
    for index, word in enumerate(arguments):
        name, _, value = word.partition("=")
        if name == "--log-level":
            return value or next(iter(arguments[index + 1 :]), "")
    return ""


def check_audio(arguments: Sequence[str], settings: Settings) -> None:
    """Where a command line asks for a console that listens and speaks, check that it can.

    Args:
        arguments: the command line, ``sys.argv``.
        settings: they say which models there are.

    Raises:
        SystemExit: it cannot; the line says why.
    """
    words = arguments[1:]
    if words[:1] != ["console"] or "--help" in words:
        return
    try:
        with _quiet_library():
            sound = importlib.import_module("sounddevice")
    except (ImportError, OSError):
        raise SystemExit(f"companion: {NO_AUDIO}") from None
    if "--list-devices" in words:
        return
    if settings.models == "offline":
        raise SystemExit(f"companion: {NO_VOICE}")
    given = {word.partition("=")[0] for word in words}
    for kind, name in _DEVICES.items():
        if f"--{kind}-device" in given:  # LiveKit says whether there is one of that name
            continue
        try:
            with _quiet_library():
                sound.query_devices(kind=kind)
        except Exception:  # sounddevice's own, or ValueError, by the kind of machine
            raise SystemExit(f"companion: Talking aloud needs a {name}, and none was found. {TO_TYPE}") from None


@contextmanager
def _quiet_library() -> Iterator[None]:
    """PortAudio and ALSA write to the terminal what they do not find: a page of it where there is no sound card."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
