"""A latency probe: one GET every half millisecond, from a process of its own: ``latency_probe PORT``.

Any request is answered with the duration of each GET (seconds) since the previous request. The probe uses a plain
blocking socket, so that it measures the server and not a client library.
"""

from __future__ import annotations

import select
import socket
import sys
import time

from benchmarks.child import reply

KEY = "probe:key"
_PAUSE = 0.0005


def main(port: int) -> None:
    """Probe until the parent closes the pipe."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    command = f"GET {KEY}\r\n".encode()
    seconds: list[float] = []
    reply("ready")
    while True:
        began = time.perf_counter()
        connection.sendall(command)
        answer = connection.recv(4096)
        seconds.append(time.perf_counter() - began)
        if not answer.startswith(b"$2\r\nOK"):
            raise SystemExit(f"wrong reply: {answer!r}")
        if select.select([sys.stdin], [], [], _PAUSE)[0]:
            if not sys.stdin.readline():
                return
            reply(seconds)
            seconds = []


if __name__ == "__main__":
    main(int(sys.argv[1]))
