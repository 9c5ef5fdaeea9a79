"""The handshake of a connection to Redis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..redis_url import Endpoint
from .connection import Argument, pack

CLIENT_NAME: Final = "companion-cache"
"""The name of every connection in ``CLIENT LIST``."""


def handshake(endpoint: Endpoint, setup: Iterable[tuple[Argument, ...]]) -> list[bytes]:
    """The packed commands a new connection begins with, HELLO first, PING last."""
    hello: tuple[Argument, ...] = (b"HELLO", 3)
    if endpoint.username or endpoint.password:
        hello += (b"AUTH", endpoint.username or "default", endpoint.password or "")
    hello += (b"SETNAME", CLIENT_NAME)  # not CLIENT SETNAME: HELLO needs no right of its own
    commands: list[tuple[Argument, ...]] = [hello]
    if endpoint.db:
        commands.append((b"SELECT", endpoint.db))
    return [pack(command) for command in (*commands, *setup, (b"PING",))]
