"""Commands as bytes, what can be read from them, and the fields of a reply to INFO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis

from .client import Argument

_KEYLESS: Final = frozenset(("PING", "INFO", "DBSIZE", "SCRIPT", "SCAN", "CLIENT", "CLUSTER"))
_SCRIPTS: Final = frozenset(("EVALSHA", "EVAL"))
# The stub of hiredis types the argument as a tuple of exactly one item.
pack = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)


def unpack(command: bytes) -> list[bytes]:
    """A packed command, as its arguments."""
    reader = hiredis.Reader()
    reader.feed(command)
    return cast("list[bytes]", reader.gets())


def key_of(command: Sequence[Any]) -> Any:
    """The first key of a command of ours; None if it has none."""
    name = command[0].decode() if isinstance(command[0], bytes) else command[0]
    return None if name in _KEYLESS else command[3 if name in _SCRIPTS else 1]


def info_of(reply: Any) -> dict[str, str]:
    """The fields of a reply to INFO: a text in RESP3, bytes in RESP2. None if the server refused."""
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply if isinstance(reply, str) else ""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
