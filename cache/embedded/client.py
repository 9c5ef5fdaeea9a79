"""A few commands to a server on a unix socket, from any thread and without a client library."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

_REPLY_SECONDS: Final = 0.2


def ask(socket_path: str, *commands: str) -> str:
    """The replies to ``commands`` and a PING; empty if the server does not answer, or is still loading its data."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_REPLY_SECONDS)
        connection.connect(socket_path)
        connection.sendall("".join(f"{command}\r\n" for command in (*commands, "PING")).encode())
        reply = b""
        while not reply.startswith(b"-") and (data := connection.recv(4096)):
            reply += data
            if reply.endswith(b"+PONG\r\n"):
                return reply.decode(errors="replace")
    return ""


def answers(socket_path: str) -> bool:
    """Whether a server answers a PING."""
    return ask(socket_path) != ""


def field(info: str, name: str) -> str:
    """The value of a field of an INFO reply; empty if there is none."""
    return next((line.partition(":")[2] for line in info.splitlines() if line.startswith(f"{name}:")), "")
