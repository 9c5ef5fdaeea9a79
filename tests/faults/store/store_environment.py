"""The store of a scenario and its faults: a SQLite file, or Supabase's API over a real PostgreSQL."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from companion.store import SqliteStore, Store, SupabaseStore
from tests.real.supabase.postgrest import Fault, PostgREST

TIMEOUT = 1.0
"""Seconds until the worker gives up a store operation in these scenarios; 5 in production."""
Kind = Literal["SQLite", "Supabase"]


class StoreEnvironment:
    """One of the two stores.

    Attributes:
        settings: the environment variables that select it.
    """

    def __init__(self, home: Path, api: PostgREST | None) -> None:
        self.home = home
        self.api = api
        self._writer: sqlite3.Connection | None = None
        self.settings = {"COMPANION_HOME": str(home)}
        if api is not None:
            self.settings |= {"SUPABASE_URL": api.url, "SUPABASE_SECRET_KEY": api.secret_key}

    @property
    def path(self) -> Path:
        return self.home / "companion.db"

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """A second client of the store, to verify its contents."""
        if self.api is None:
            opened: Store = SqliteStore(self.path)
        else:
            opened = SupabaseStore(self.api.url, self.api.secret_key, timeout=5.0)
        try:
            yield opened
        finally:
            await opened.close()

    # -- SQLite ----------------------------------------------------------------------------------------------------

    async def lock(self) -> None:
        """Hold a write transaction open on another connection."""

        def begin() -> sqlite3.Connection:
            connection = sqlite3.connect(self.path, isolation_level=None, timeout=30, check_same_thread=False)
            connection.execute("BEGIN IMMEDIATE")
            return connection

        self._writer = await asyncio.to_thread(begin)

    async def unlock(self) -> None:
        assert self._writer is not None
        await asyncio.to_thread(self._writer.close)

    async def fill_disk(self) -> None:
        """Limit the size of files of this process: writes fail as on a full disk, reads succeed."""
        await asyncio.to_thread(self._truncate_wal)
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most))  # other small files in the home still fit

    async def free_disk(self) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    async def delete_file(self) -> None:
        for path in self.home.glob("companion.db*"):
            path.unlink()

    def _truncate_wal(self) -> None:
        """Truncate the WAL, so that the next write has to grow the file."""
        connection = sqlite3.connect(self.path, timeout=30)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    # -- Supabase --------------------------------------------------------------------------------------------------

    async def refuse(self) -> None:
        assert self.api is not None
        await self.api.stop()

    async def accept(self) -> None:
        assert self.api is not None
        await self.api.start()

    async def answer_with(self, fault: Fault | None) -> None:
        assert self.api is not None
        self.api.fault = fault

    async def delay(self, seconds: float) -> None:
        assert self.api is not None
        self.api.delay = seconds


Action = Callable[[StoreEnvironment], Awaitable[None]]


@dataclass(frozen=True)
class StoreFault:
    """A fault of the store.

    Attributes:
        name: name in the table.
        kind: the store.
        begin: injects the fault.
        end: removes it.
        fails: the operations that fail meanwhile.
        loses_data: whether data stored before is lost.
    """

    name: str
    kind: Kind
    begin: Action
    end: Action
    fails: Literal["all", "writes", "nothing"] = "all"
    loses_data: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


async def _no_action(env: StoreEnvironment) -> None:
    """The fault needs no action to end."""


def _answers(fault: Fault, name: str) -> StoreFault:
    return StoreFault(name, "Supabase", lambda env: env.answer_with(fault), lambda env: env.answer_with(None))


STORE_FAULTS = (
    StoreFault("locked", "SQLite", StoreEnvironment.lock, StoreEnvironment.unlock, fails="writes"),
    StoreFault("disk full", "SQLite", StoreEnvironment.fill_disk, StoreEnvironment.free_disk, fails="writes"),
    StoreFault("file deleted", "SQLite", StoreEnvironment.delete_file, _no_action, fails="nothing", loses_data=True),
    StoreFault("refused", "Supabase", StoreEnvironment.refuse, StoreEnvironment.accept),
    _answers("silent", "silent"),
    StoreFault("500 ms slow", "Supabase", lambda env: env.delay(0.5), lambda env: env.delay(0.0), fails="nothing"),
    _answers("504", "504 {}"),
    _answers("html", "200 with HTML"),
    _answers("cut", "cut JSON"),
    _answers("401", "expired key (401)"),
    _answers("broken row", "broken row"),
)
