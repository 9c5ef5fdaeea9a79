"""What a worker needs of LiveKit, checked before it starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from .errors import SettingsError
from .models import host_of

_COMMANDS: Final = ("console", "start", "dev", "connect")
_WANTED: Final = {"LIVEKIT_URL": "--url", "LIVEKIT_API_KEY": "--api-key", "LIVEKIT_API_SECRET": "--api-secret"}


def holds_conversations(arguments: Sequence[str]) -> bool:
    """Whether a command line starts a worker or a console; not its ``--help``, and no other command."""
    return len(arguments) > 1 and arguments[1] in _COMMANDS and "--help" not in arguments


def check_worker(arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
    """Check that a worker about to start knows its LiveKit server.

    Args:
        arguments: the command line, ``sys.argv``.
        environ: the process's environment where None.

    Raises:
        SettingsError: the command is ``start``, ``dev`` or ``connect``, and a variable is missing, or is no address.
    """
    if not holds_conversations(arguments) or (command := arguments[1]) == "console":
        return
    env = os.environ if environ is None else environ
    given = {word.split("=")[0] for word in arguments}
    missing = [name for name, option in _WANTED.items() if not env.get(name, "").strip() and option not in given]
    if missing:
        raise SettingsError(
            f"'{command}' needs {', '.join(missing)} (in the environment, in .env.local or in .env). "
            "To talk without a LiveKit server: make console, or companion console --text"
        )
    url = env.get("LIVEKIT_URL", "").strip()
    if "--url" not in given and (
        not host_of(url) or "<" in url or urlsplit(url).scheme not in ("ws", "wss", "http", "https")
    ):
        raise SettingsError("LIVEKIT_URL must be the address of a LiveKit server, such as wss://PROJECT.livekit.cloud.")
