"""A private redis-server for a machine that has none, in a directory of its own, reached by a unix socket.

Programs that start it for the same home share one server; the last one to stop ends it. A program that is killed
leaves nothing behind: see `embedded_keeper`. How they agree: see `embedded_seat`.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from .seat import EmbeddedRedisError, Seat, find_redis_server

__all__ = ["EmbeddedRedis", "EmbeddedRedisError", "find_redis_server"]


class EmbeddedRedis:
    """One use of the private redis-server in `home`/redis. Several, in this process or others, share the server."""

    def __init__(self, home: Path) -> None:
        self.folder = home.expanduser().absolute() / "redis"
        self._mutex = threading.Lock()  # starting and stopping run in threads
        self._wanted = False
        self._seat: Seat | None = None

    async def start(self) -> str:
        """Start the server, or join the one that runs, and return its `unix://` URL once it answers.

        Takes at most about three seconds. Raises EmbeddedRedisError. Starting twice is starting once.
        """
        self._wanted = True
        try:
            return await asyncio.to_thread(self._start)
        except asyncio.CancelledError:
            # A thread cannot be interrupted: what it is still starting is stopped behind it.
            self._wanted = False
            threading.Thread(target=self._stop, name="embedded-redis-stop").start()
            raise

    async def stop(self) -> None:
        """Leave the server. The last user ends it, its data synced to disk, within about two seconds.

        May be called at any time, and twice. A caller that is cancelled stops waiting, not the stopping.
        """
        self._wanted = False
        await asyncio.shield(asyncio.to_thread(self._stop))

    def _start(self) -> str:
        with self._mutex:
            try:
                if self._seat is None:
                    self._make_folder()
                    self._seat = Seat(self.folder)
            except OSError as error:
                raise EmbeddedRedisError(
                    f"cannot use {error.filename or self.folder}: {error.strerror or error}; "
                    "choose a home directory that this user can write to"
                ) from error
            url = self._seat.url
        if not self._wanted:
            self._stop()
        return url

    def _stop(self) -> None:
        with self._mutex:
            if self._seat:
                self._seat.leave()
                self._seat = None

    def _make_folder(self) -> None:
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if self.folder.stat().st_mode & 0o777 != 0o700:
            self.folder.chmod(0o700)
