"""A store that can be hurt, and the ways to hurt it: a SQLite file, or Supabase's API over a real PostgreSQL."""

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
from tests.real.postgrest import Fault, PostgREST

TIMEOUT = 1.0
"""Seconds that the worker gives the store in these trials; 5 otherwise."""
Kind = Literal["SQLite", "Supabase"]


class StoreWorld:
    """One of the two stores.

    Attributes:
        settings: the environment that leads the worker to it.
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
        """The store, opened once more, to look at the truth with."""
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
        """Somebody else is writing, and does not end."""

        def begin() -> sqlite3.Connection:
            link = sqlite3.connect(self.path, isolation_level=None, timeout=30, check_same_thread=False)
            link.execute("BEGIN IMMEDIATE")
            return link

        self._writer = await asyncio.to_thread(begin)

    async def unlock(self) -> None:
        assert self._writer is not None
        await asyncio.to_thread(self._writer.close)

    async def fill_disk(self) -> None:
        """No file of this process may grow: as on a full disk, writing fails and reading goes on."""
        await asyncio.to_thread(self._empty_log)
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most))  # what is written to the home by others fits

    async def free_disk(self) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    async def delete_file(self) -> None:
        for path in self.home.glob("companion.db*"):
            path.unlink()

    def _empty_log(self) -> None:
        """Every write begins at the start of the log again, with a file that has to grow."""
        link = sqlite3.connect(self.path, timeout=30)
        link.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        link.close()

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


Step = Callable[[StoreWorld], Awaitable[None]]


@dataclass(frozen=True)
class StoreFault:
    """Something that happens to the store.

    Attributes:
        name: as the table shows it.
        kind: which store.
        begin: makes it happen.
        end: ends it.
        fails: what the worker cannot do meanwhile.
        loses: whether what was stored before is gone for good.
    """

    name: str
    kind: Kind
    begin: Step
    end: Step
    fails: Literal["all", "writes", "nothing"] = "all"
    loses: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


async def _nothing(world: StoreWorld) -> None:
    """It is as it is."""


def _answers(fault: Fault, name: str) -> StoreFault:
    return StoreFault(name, "Supabase", lambda world: world.answer_with(fault), lambda world: world.answer_with(None))


STORE_FAULTS = (
    StoreFault("locked", "SQLite", StoreWorld.lock, StoreWorld.unlock, fails="writes"),
    StoreFault("disk full", "SQLite", StoreWorld.fill_disk, StoreWorld.free_disk, fails="writes"),
    StoreFault("file deleted", "SQLite", StoreWorld.delete_file, _nothing, fails="nothing", loses=True),
    StoreFault("refused", "Supabase", StoreWorld.refuse, StoreWorld.accept),
    _answers("silent", "silent"),
    StoreFault(
        "500 ms slow", "Supabase", lambda world: world.delay(0.5), lambda world: world.delay(0.0), fails="nothing"
    ),
    _answers("504", "504 {}"),
    _answers("html", "200 with HTML"),
    _answers("cut", "cut JSON"),
    _answers("401", "expired key (401)"),
    _answers("broken row", "broken row"),
)
