"""Somebody else's client: one GET every half millisecond, from a process of its own: ``bystander PORT``.

Told anything, it answers with how long each GET took (seconds) since it was last told. It asks with a bare blocking
socket, so that it measures the server and not a client library.
"""

from __future__ import annotations

import select
import socket
import sys
import time

from .child import tell

KEY = "somebody:else"
_PAUSE = 0.0005


def main(port: int) -> None:
    """Ask until the parent hangs up."""
    link = socket.create_connection(("127.0.0.1", port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    command = f"GET {KEY}\r\n".encode()
    took: list[float] = []
    tell("ready")
    while True:
        began = time.perf_counter()
        link.sendall(command)
        reply = link.recv(4096)
        took.append(time.perf_counter() - began)
        if not reply.startswith(b"$2\r\nOK"):
            raise SystemExit(f"a wrong answer: {reply!r}")
        if select.select([sys.stdin], [], [], _PAUSE)[0]:
            if not sys.stdin.readline():
                return
            tell(took)
            took = []


if __name__ == "__main__":
    main(int(sys.argv[1]))
