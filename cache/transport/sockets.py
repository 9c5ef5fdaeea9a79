"""The TCP options of a connection's socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time at all
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPALIVE", 30), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


def tune(transport: asyncio.BaseTransport) -> None:
    """Let the kernel notice a peer that is gone."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # a socket that just closed is noticed soon enough
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE:
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def reset(transport: asyncio.Transport) -> None:
    """Reset the TCP connection. After a normal close the kernel goes on delivering its buffer, for minutes.

    An unanswered SET would then be executed after a later one that was answered over the next connection.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()
