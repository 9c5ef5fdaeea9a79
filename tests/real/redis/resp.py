"""Redis commands over a plain blocking socket, for checks independent of the client library."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

Part = str | bytes | int | float


class RedisReplyError(Exception):
    """The server answered with an error; the text is the server's."""


def ask(link: socket.socket, *commands: Sequence[Part]) -> Any:
    """Send the commands one after the other and return the last one's reply: str, int, None or a list of them.

    Bytes that are no UTF-8 come back as surrogates. Raises RedisReplyError for an error reply to any of them,
    OSError when the connection ends or is silent.
    """
    reply = None
    with link.makefile("rb") as replies:
        for command in commands:
            link.sendall(_encode(command))
            reply = _read(replies)
    return reply


def ask_each(link: socket.socket, commands: Iterable[Sequence[Part]]) -> list[Any]:
    """The replies to commands that are sent together. Raises as :func:`ask`, for the first error."""
    commands = list(commands)
    link.sendall(b"".join(map(_encode, commands)))
    with link.makefile("rb") as replies:
        return [_read(replies) for _ in commands]


def _encode(command: Sequence[Part]) -> bytes:
    parts = [part if isinstance(part, bytes) else str(part).encode(errors="surrogateescape") for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def _read(replies: BinaryIO) -> Any:
    line = replies.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionResetError("the server closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise RedisReplyError(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else replies.read(int(rest) + 2)[:-2].decode(errors="surrogateescape")
    if kind == b"*":
        return None if rest == b"-1" else [_read(replies) for _ in range(int(rest))]
    return rest.decode()
