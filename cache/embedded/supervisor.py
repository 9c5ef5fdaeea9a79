"""The supervisor of a private redis-server: a small process that starts it and ends it once its owner is gone.

The owner holds the other end of the supervisor's standard input. The kernel closes that end however the owner ends,
SIGKILL included; a child that the owner forked without ``exec`` counts as the owner. ``PR_SET_PDEATHSIG`` would need no
process in between, but macOS has nothing like it, and on Linux it fires when the thread that forked ends.

It runs as a script, with neither this package nor ``site`` on its path, to start fast and stay at about 10 MB.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys

STOP_SECONDS = 2.0


def supervise(lock: int, socket_path: str, command: list[str]) -> None:
    """Run a server that inherits ``lock`` and listens at ``socket_path`` until it ends: by itself or with its owner."""
    ended, held = os.pipe()  # the server holds one end: readable once it and what it wraps have ended
    server = subprocess.Popen(
        command,
        stdin=held,
        pass_fds=[lock],
        start_new_session=True,  # so that what is on PATH may be a wrapper: signals are for the group
    )
    os.close(held)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # only the owner's end counts, and these reach the owner too
    if ended not in select.select([sys.stdin, ended], [], [])[0]:
        with contextlib.suppress(OSError):  # a program that starts now must not join: it waits for the lock
            os.unlink(socket_path)
        for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended; macOS says so of a zombie
                os.killpg(server.pid, number)  # at SIGTERM Redis writes and syncs its log, as at SHUTDOWN
            if select.select([ended], [], [], seconds)[0]:
                break
    with contextlib.suppress(OSError):  # ours only where the socket has a directory of its own; the home is not empty
        os.rmdir(os.path.dirname(socket_path))


if __name__ == "__main__":
    supervise(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
