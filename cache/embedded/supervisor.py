"""The supervisor of a private redis-server: a small process that starts it and ends it once its owner is gone.

The owner holds the other end of the supervisor's standard input. The kernel closes that end however the owner ends,
SIGKILL included; a child that the owner forked without ``exec`` counts as the owner. ``PR_SET_PDEATHSIG`` would need no
process in between, but macOS has nothing like it, and on Linux it fires when the thread that forked ends.

It runs as a script, with neither this package nor ``site`` on its path, to start in 20 ms and stay at about 10 MB.
``server.py`` shares what is below.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

OWNER_LOCK = "owner.lock"
"""Locked by the supervisor while it runs: the server has an owner."""
SERVER_LOCK = "server.lock"
"""Locked by the server itself and by what it wraps; holds its pid."""
STOP_SECONDS = 2.0


def open_lock(path: str) -> int:
    """Open a file for ``flock``; the lock belongs to the open file, so a child that inherits it shares the lock."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def kill_group(pid: int, number: int) -> None:
    """Send a signal to a server, which leads a session, and to what it wraps."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended; macOS says so of a zombie
        os.killpg(pid, number)


def supervise(socket_path: str, command: list[str]) -> None:
    """Run one server, which listens at ``socket_path``, until it ends: by itself or with its owner."""
    lock = open_lock(SERVER_LOCK)
    ended = open_lock(SERVER_LOCK)  # opened now: the folder may be gone when the server ends
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.ftruncate(lock, 0)
    server = subprocess.Popen(
        command, stdin=lock, start_new_session=True, preexec_fn=lambda: os.write(0, b"%d\n" % os.getpid())
    )
    os.close(lock)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # only the owner's end counts, and these reach the owner too

    def end_with_owner() -> None:
        os.read(0, 1)  # returns at the end of the input
        with contextlib.suppress(OSError):  # a program that starts now must not join: it waits for the lock
            os.unlink(socket_path)
        kill_group(server.pid, signal.SIGTERM)  # Redis writes and syncs its log, as at SHUTDOWN
        time.sleep(STOP_SECONDS)
        kill_group(server.pid, signal.SIGKILL)

    threading.Thread(target=end_with_owner, daemon=True).start()
    fcntl.flock(ended, fcntl.LOCK_EX)  # acquired once the server and its children have ended
    with contextlib.suppress(OSError):  # ours only where the socket has a directory of its own; the home is not empty
        os.rmdir(os.path.dirname(socket_path))


if __name__ == "__main__":
    supervise(sys.argv[1], sys.argv[2:])
    os._exit(0)  # the thread may be in a system call
