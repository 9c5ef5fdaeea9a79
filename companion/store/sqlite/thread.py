"""A thread that owns a connection to an SQLite file, so that waiting for the file does not block the event loop.

Several worker processes may share the file: WAL lets them read while one writes, and every write takes the write lock
when it begins. SQLite would refuse a transaction that reads first and writes later at once, despite the busy timeout.
"""

import asyncio
import contextlib
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ...file_lock import lock
from ..base import PersonErased, StoreError
from ..fact_key import fact_key
from .schema import create_schema

logger = logging.getLogger("companion")

_T = TypeVar("_T")
_one_at_a_time = threading.Lock()  # of this process, where the system has no lock for files
_CLOSE_TIMEOUT = 2.0  # seconds
BUSY_TIMEOUT_MS = 2000  # short: the write-behind queue retries, and others wait behind this statement


class SqliteThread:
    """One connection to the file at ``path``, created with its directory (mode 0700) on first use.

    Every method but ``close`` raises StoreError, and nothing else, when it fails.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-store")
        self._deadline = math.inf  # after which queued work fails
        # Only the thread uses these two.
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    async def read(self, operation: str, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Read from a snapshot of the file.

        Args:
            operation: the name for a StoreError.
            work: reads, in the thread.

        Returns:
            What ``work`` returns.
        """

        def in_snapshot(db: sqlite3.Connection) -> _T:
            with _transaction(db, "BEGIN"):
                return work(db)

        job = self._submit(operation, in_snapshot)
        try:
            await _finished(job)
        except asyncio.CancelledError:
            job.cancel()
            raise
        return job.result()

    async def write(self, operation: str, statement: str, *rows: tuple[str | int, ...]) -> int:
        """Execute a statement once per row, all in one transaction. It is done even if the caller is cancelled.

        Args:
            operation: the name for a StoreError.
            statement: the statement.
            rows: its parameters.

        Returns:
            The number of rows that changed.
        """
        return await self.change(operation, lambda db: db.executemany(statement, rows).rowcount)

    async def change(self, operation: str, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Read and write in one transaction. It is done even if the caller is cancelled.

        Args:
            operation: the name for a StoreError.
            work: reads and writes, in the thread.

        Returns:
            What ``work`` returns.
        """

        def in_transaction(db: sqlite3.Connection) -> _T:
            with _transaction(db, "BEGIN IMMEDIATE"):
                return work(db)

        job = self._submit(operation, in_transaction)
        try:
            await _finished(job)
        except asyncio.CancelledError:
            # The write goes on, and nothing else reports its failure.
            job.add_done_callback(_log_failure)
            raise
        return job.result()

    async def maintain(self, operation: str, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """As ``change``, outside of a transaction: for statements that cannot run inside one."""
        job = self._submit(operation, work)
        await _finished(job)
        return job.result()

    async def close(self) -> None:
        """Finish the queued work within two seconds, then close the file. May be called twice."""
        self._deadline = min(self._deadline, time.monotonic() + _CLOSE_TIMEOUT)
        try:
            job = self._thread.submit(self._disconnect)
        except RuntimeError:  # closed already, or about to be
            return
        # Accepts no more work; the queued work is still done, and the closing of the file last.
        self._thread.shutdown(wait=False)
        await _finished(job)
        self._thread.shutdown()

    def _submit(self, operation: str, work: Callable[[sqlite3.Connection], _T]) -> Future[_T]:
        with contextlib.suppress(RuntimeError):
            return self._thread.submit(self._on_thread, operation, work)
        raise StoreError(operation, "closed")

    def _on_thread(self, operation: str, work: Callable[[sqlite3.Connection], _T]) -> _T:
        if time.monotonic() > self._deadline:
            raise StoreError(operation, "closed")
        try:
            return work(self._connect())
        except PersonErased:
            raise
        except Exception as error:  # not sqlite3.Error alone: a file edited by hand may hold any value
            reason = getattr(error, "sqlite_errorname", None) or type(error).__name__
        # Outside the handler, so that it has no __context__: some of these errors quote the value they failed on.
        raise StoreError(operation, reason)

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._identity == _identity(self._path):
                return self._connection
            # Writes to a deleted file would be lost.
            logger.warning("The database file was deleted or replaced: opening what is there now.")
            self._disconnect()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _file_lock(self._path.with_name(self._path.name + ".lock")):
            # Opened here only to create it: to close a file drops every lock of this process on it, also those of its
            # other connections, and then another process that closes the database deletes the write-ahead log.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)
            try:
                db.create_function("fact_key", 1, fact_key, deterministic=True)
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA secure_delete = ON")  # overwrites what is deleted, or replaced
                create_schema(db)
            except BaseException:
                db.close()
                raise
        self._connection, self._identity = db, _identity(self._path)
        return db

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = self._identity = None


async def _finished(job: "Future[_T]") -> None:
    """Wait until a job has ended, however it ended. To cancel the wait does not cancel the job."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ended.done():
            ended.set_result(None)

    def notify(_: "Future[_T]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be closed
            loop.call_soon_threadsafe(wake)

    job.add_done_callback(notify)
    await ended


def _log_failure(job: "Future[_T]") -> None:
    error = job.exception()
    if error is not None:
        logger.warning("A write failed after its caller was cancelled: %s", error)


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection, begin: str) -> Iterator[None]:
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    # SQLite's own locks do not cover a switch to WAL and the DDL of several processes at once.
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        with _one_at_a_time:
            lock(handle, wait=True)
            yield
    finally:
        os.close(handle)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
