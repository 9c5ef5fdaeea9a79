"""The source of truth in one file, for a machine that has nothing else.

One thread owns the connection; callers wait for it without holding the event loop. Several worker processes
may share the file: WAL lets them read while one writes, and every write takes the write lock when it begins.
A transaction that reads first and writes later would be refused at once, whatever the busy timeout says.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from .base import Memory, StoreError, Turn, storable
from .sqlite_schema import WrittenByNewerVersion, create_schema
from .words import search_words

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_BUSY_TIMEOUT_MS = 5000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SqliteStore:
    """A Store in the SQLite file at `path`, created with its directory (mode 0700) on first use."""

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-store")
        # These two belong to the thread.
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    async def get_profile(self, user_id: str) -> str | None:
        def work(db: sqlite3.Connection) -> str | None:
            row = db.execute("SELECT text FROM profiles WHERE user_id = ?", (user_id,)).fetchone()
            return None if row is None else str(row[0])

        return await self._read("get_profile", work)

    async def save_profile(self, user_id: str, text: str) -> None:
        await self._write(
            "save_profile",
            "INSERT INTO profiles (user_id, text, updated_at) VALUES (?, ?, ?)"
            " ON CONFLICT (user_id) DO UPDATE SET text = excluded.text, updated_at = excluded.updated_at",
            (user_id, storable(text), _to_microseconds(datetime.now(UTC))),
        )

    async def add_turn(self, user_id: str, turn: Turn) -> None:
        await self._write(
            "add_turn",
            "INSERT INTO turns (user_id, id, conversation_id, role, text, at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (user_id, id) DO NOTHING",
            (
                user_id,
                turn.id,
                turn.conversation_id,
                turn.role,
                storable(turn.text),
                _to_microseconds(turn.at),
            ),
        )

    async def recent_turns(self, user_id: str, limit: int = 20) -> list[Turn]:
        def work(db: sqlite3.Connection) -> list[Turn]:
            rows = db.execute(
                "SELECT role, text, at, conversation_id, id FROM turns WHERE user_id = ?"
                " ORDER BY at DESC, seq DESC LIMIT ?",
                (user_id, max(limit, 0)),
            ).fetchall()
            return [
                Turn(role, text, _from_microseconds(at), conversation_id, id)
                for role, text, at, conversation_id, id in reversed(rows)
            ]

        return await self._read("recent_turns", work)

    async def add_memory(self, user_id: str, memory: Memory) -> None:
        await self._write(
            "add_memory",
            "INSERT INTO memories (user_id, id, text, at) VALUES (?, ?, ?, ?) ON CONFLICT (user_id, id) DO NOTHING",
            (user_id, memory.id, storable(memory.text), _to_microseconds(memory.at)),
        )

    async def search_memories(self, user_id: str, query: str, limit: int = 5) -> list[Memory]:
        def work(db: sqlite3.Connection) -> list[Memory]:
            words = search_words(query)
            if words:
                # Quoted, a word is only ever a word to FTS5: AND, NEAR, * and ^ lose their meaning.
                rows = db.execute(
                    "SELECT memories.text, memories.at, memories.id FROM memories_text"
                    " JOIN memories ON memories.seq = memories_text.rowid"
                    " WHERE memories_text MATCH ? AND memories.user_id = ?"
                    " ORDER BY bm25(memories_text), memories.at DESC, memories.seq DESC LIMIT ?",
                    (" OR ".join(f'"{word}"' for word in words), user_id, max(limit, 0)),
                )
            else:
                rows = db.execute(
                    "SELECT text, at, id FROM memories WHERE user_id = ? ORDER BY at DESC, seq DESC LIMIT ?",
                    (user_id, max(limit, 0)),
                )
            return [Memory(text, _from_microseconds(at), id) for text, at, id in rows]

        return await self._read("search_memories", work)

    async def close(self) -> None:
        try:
            job = self._thread.submit(self._disconnect)
        except RuntimeError:  # closed already, or about to be
            return
        # From here on nothing new is accepted; what is queued is still done, the closing last.
        self._thread.shutdown(wait=False)
        await _finished(job)
        self._thread.shutdown()

    async def _read(self, operation: str, work: Callable[[sqlite3.Connection], _T]) -> _T:
        job = self._submit(operation, work)
        try:
            await _finished(job)
        except asyncio.CancelledError:
            job.cancel()
            raise
        return job.result()

    async def _write(self, operation: str, statement: str, values: tuple[str | int, ...]) -> None:
        def work(db: sqlite3.Connection) -> None:
            with _transaction(db):
                db.execute(statement, values)

        job = self._submit(operation, work)
        try:
            await _finished(job)
        except asyncio.CancelledError:
            # The caller hung up, the write goes on: only a failure is left to tell.
            job.add_done_callback(_report_failure)
            raise
        job.result()

    def _submit(self, operation: str, work: Callable[[sqlite3.Connection], _T]) -> Future[_T]:
        with contextlib.suppress(RuntimeError):
            return self._thread.submit(self._on_thread, operation, work)
        raise StoreError(operation, "closed")

    def _on_thread(self, operation: str, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return work(self._connect())
        except sqlite3.Error as error:
            reason = getattr(error, "sqlite_errorname", None) or type(error).__name__
        except (OSError, ValueError, OverflowError, WrittenByNewerVersion) as error:
            reason = type(error).__name__
        # Raised out here, it carries no context: some of these errors quote the value they choked on.
        raise StoreError(operation, reason)

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._identity == _identity(self._path):
                return self._connection
            # The file was deleted or replaced under us. Writing on would fill a file that nobody can open.
            logger.warning("The database file was deleted or replaced: opening what is there now.")
            self._disconnect()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _file_lock(self._path.with_name(self._path.name + ".lock")):
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            db = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_MS / 1000, isolation_level=None)
            try:
                db.execute("PRAGMA journal_mode = WAL")
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
    """Waits until `job` has ended, however it ended. Cancelling the wait leaves the job alone."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ended.done():
            ended.set_result(None)

    def tell(_: "Future[_T]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be gone by now, the work is done all the same
            loop.call_soon_threadsafe(wake)

    job.add_done_callback(tell)
    await ended


def _report_failure(job: "Future[None]") -> None:
    error = job.exception()
    if error is not None:
        logger.warning("A write failed after its caller had left: %s", error)


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
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
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _to_microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _from_microseconds(count: int) -> datetime:
    return _EPOCH + count * _MICROSECOND
