"""The keeper: a small process that ends a private redis-server once nobody uses it any more.

Every program that uses the server holds a shared lock on `users.lock`. The kernel takes that lock back however the
program ends, SIGKILL included. The keeper sleeps in the kernel until it gets the lock for itself, ends the server
and goes. So a crashed console leaves no process behind, and nothing polls.

It is run as a script by `embedded_seat.py`, which shares the locks below. It imports little, to stay at about 10 MB.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import time

STOP_SECONDS = 2.0
KILL_SECONDS = 1.0
CLEAN = "ended-cleanly"
"""A file that is there while no server runs, if the last one ended as it should."""


class FileLock:
    """A `flock` on a file: it belongs to the open file, so children that inherit the file share the lock.

    (POSIX record locks would not do: they are one per process and vanish when any descriptor of the file closes.)
    """

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, kind: int, wait: float = 0.0) -> bool:
        """Take it as fcntl.LOCK_EX or LOCK_SH, waiting at most `wait` seconds; False when it was not to be had."""
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.005)
            else:
                return True

    def release(self) -> None:
        """Let go, for every process that shares this open file."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close this descriptor; the lock itself lives on while another process has the open file."""
        os.close(self.fd)


class ServerFile:
    """`server.lock`: locked by the running server itself, with the socket's path and the server's pid inside.

    A pid file can lie after a crash. This one is believed only while the lock is held, and then the pid is right.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.lock = FileLock(os.path.join(folder, "server.lock"))

    @property
    def alive(self) -> bool:
        """Whether a server runs."""
        if self.lock.take(fcntl.LOCK_EX):
            self.lock.release()
            return False
        return True

    def read(self) -> tuple[str, int | None]:
        """Path of the socket ("" if none was written) and pid of the server (None in its first milliseconds)."""
        socket_path, _, pid = os.fsdecode(os.pread(self.lock.fd, 4096, 0)).partition("\0")
        return socket_path, int(pid) if pid.endswith("\n") and pid[:-1].isdecimal() else None

    def write(self, socket_path: str) -> None:
        """Clear away what a killed server left, and name the next one's socket. It adds its pid itself."""
        self.tidy()
        os.write(self.lock.fd, os.fsencode(f"{socket_path}\0"))

    def answers(self) -> str:
        """What the server says to PING, "" if nothing: "+PONG", or "-LOADING ..." while it reads its data."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(0.2)
            try:
                link.connect(self.read()[0])
                link.sendall(b"PING\r\n")
                return link.recv(64).decode(errors="replace")
            except OSError:
                return ""

    def vouch(self, key: str) -> None:
        """Note under ``key`` which server this is (see `recall`): it holds all that the one before it was told."""
        # What does not say which it is gets no mark, and is doubted.
        with contextlib.suppress(OSError, KeyError), socket.socket(socket.AF_UNIX) as link:
            link.settimeout(0.2)
            link.connect(self.read()[0])
            link.sendall(b"INFO server\r\nINFO replication\r\nPING\r\n")
            told = b""
            while not told.endswith(b"+PONG\r\n"):
                if not (more := link.recv(4096)):
                    return
                told += more
            values = dict(line.split(b":", 1) for line in told.splitlines() if b":" in line)
            mark = b"%s:%s" % (values[b"run_id"], values[b"master_replid"])
            link.sendall(b"SET %s %s\r\n" % (key.encode(), mark))
            link.recv(64)

    def ended_cleanly(self) -> bool:
        """Whether the last server wrote all it was told before it ended. To be asked before the next one is started.

        One that was killed may not have: Redis acknowledges a write before its log has it, for up to two seconds while
        the disk is busy.
        """
        try:
            os.unlink(os.path.join(self.folder, CLEAN))
        except OSError:
            return False
        return True

    def end(self, stop_seconds: float = STOP_SECONDS) -> bool:
        """End the server, if one runs, within `stop_seconds` + KILL_SECONDS; only for who holds users.lock alone.

        SIGTERM makes Redis write and sync its data, as SHUTDOWN does, and needs no answering server.
        """
        for number, wait in ((signal.SIGTERM, stop_seconds), (signal.SIGKILL, KILL_SECONDS)):
            if not self.alive:
                break
            pid = self.read()[1]
            if pid:
                with contextlib.suppress(ProcessLookupError):  # it ended by itself just now
                    os.killpg(pid, number)  # it leads its session; what is on PATH may be a wrapper around it
            if self.lock.take(fcntl.LOCK_EX, wait):
                if number == signal.SIGTERM:
                    with contextlib.suppress(OSError):  # the folder is gone: there is nothing to vouch for
                        os.close(os.open(os.path.join(self.folder, CLEAN), os.O_CREAT | os.O_WRONLY, 0o600))
                self.lock.release()
        if self.alive:
            return False
        self.tidy()
        return True

    def tidy(self) -> None:
        """Remove a dead server's socket, the temporary directory that was made for it, and its record."""
        socket_path = self.read()[0]
        if socket_path:
            with contextlib.suppress(OSError):  # a server that ended cleanly removed it
                os.unlink(socket_path)
            if (place := os.path.dirname(socket_path)) != self.folder:
                with contextlib.suppress(OSError):  # gone, or not empty and so not only ours
                    os.rmdir(place)
        os.ftruncate(self.lock.fd, 0)
        os.lseek(self.lock.fd, 0, os.SEEK_SET)


def keep(folder: str) -> None:
    """Wait until nobody uses the server of `folder`, and end it. Standard input is the locked keeper.lock."""
    server = ServerFile(folder)  # opened first: if the folder is replaced meanwhile, we mind the old server
    users = FileLock(os.path.join(folder, "users.lock"))
    fcntl.flock(users.fd, fcntl.LOCK_EX)
    server.end()
    os.close(sys.stdin.fileno())  # before users.lock: the next start must see that it needs a keeper of its own
    users.close()


if __name__ == "__main__":
    keep(sys.argv[1])
    os._exit(0)  # nothing to flush, and whoever waits for us should not find us tidying up
