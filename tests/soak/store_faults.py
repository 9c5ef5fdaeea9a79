"""The faults of the SQLite store: how to inject and how to remove each."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from companion.store import StoreError
from companion.store.sqlite.thread import SqliteThread
from tests.faults.harness.environment import Environment
from tests.faults.harness.faults import Fault

_SLOW: Final = 0.3


class LockedFile:
    """Holds a write transaction open on another connection."""

    def __init__(self) -> None:
        self._link: sqlite3.Connection | None = None

    async def begin(self, env: Environment) -> None:
        def lock() -> sqlite3.Connection:
            path = Path(os.environ["COMPANION_HOME"]) / "companion.db"
            connection = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
            connection.execute("BEGIN IMMEDIATE")
            return connection

        self._link = await asyncio.to_thread(lock)

    async def end(self, env: Environment) -> None:
        assert self._link is not None
        await asyncio.to_thread(self._link.close)  # rolls back
        self._link = None


class PatchedMethods:
    """Replaces the methods through which the store reads and writes its file."""

    def __init__(self, **methods: Any) -> None:
        self._methods = methods
        self._replaced = ExitStack()

    async def begin(self, env: Environment) -> None:
        self._replaced.enter_context(patch.multiple(SqliteThread, **self._methods))

    async def end(self, env: Environment) -> None:
        self._replaced.close()


async def _refuse(thread: SqliteThread, operation: str, *args: Any) -> Any:
    raise StoreError(operation, "refused")


def _slow(method: Any) -> Any:
    async def slow(thread: SqliteThread, *args: Any) -> Any:
        await asyncio.sleep(_SLOW)
        return await method(thread, *args)

    return slow


def _unanswered(method: Any) -> Any:
    async def unanswered(thread: SqliteThread, operation: str, *args: Any) -> Any:
        await method(thread, operation, *args)
        raise StoreError(operation, "no answer")

    return unanswered


def _fault(name: str, how: LockedFile | PatchedMethods) -> Fault:
    return Fault(name, how.begin, how.end)


STORE_FAULTS: Final = (
    _fault("store locked", LockedFile()),
    _fault("store refuses", PatchedMethods(read=_refuse, write=_refuse)),
    _fault("store refuses writes", PatchedMethods(write=_refuse)),
    _fault("store slow", PatchedMethods(read=_slow(SqliteThread.read), write=_slow(SqliteThread.write))),
    _fault("store writes, no reply", PatchedMethods(write=_unanswered(SqliteThread.write))),
)
