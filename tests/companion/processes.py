"""Processes that tests start, forked from a server that has no threads and has the companion imported.

Forking the test run itself may deadlock the child, because the run has threads; Python 3.12 and later warn of it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from typing import Any

processes = get_context("forkserver")
# Imported once, by the server: the import takes a second.
processes.set_forkserver_preload(
    [
        "tests.companion.caching.memory_worker",
        "tests.companion.writes.outage_worker",
        "tests.companion.memory.erasure_worker",
        "tests.soak.killed.killed_worker",
        "tests.companion.store.sqlite.test_sqlite",
        "tests.companion.store.sqlite.test_sqlite_schema",
    ]
)


def ensure_fork_server() -> None:
    """Start the server, if it does not run."""
    forkserver.ensure_running()


def stop_fork_server() -> None:
    """Stop the server, which would otherwise end only after this process, and slowly."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # private: as Python's own tests do it


class Worker:
    """A worker in a process of its own that carries out orders.

    Args:
        work: runs in the process; its first argument is the connection that orders come from (``next_order``).
        args: its other arguments.
    """

    def __init__(self, work: Callable[..., None], *args: object) -> None:
        self._orders, theirs = processes.Pipe()
        self._process = processes.Process(target=work, args=(theirs, *args))
        self._process.start()
        theirs.close()

    async def answer(self) -> Any:
        """Its next message; None after its death."""
        try:
            return await asyncio.to_thread(self._orders.recv)
        except EOFError:
            return None

    def send(self, order: str) -> None:
        """Give an order, and do not wait for its answer."""
        self._orders.send(order)

    async def do(self, order: str) -> Any:
        """Give an order; its answer."""
        self.send(order)
        return await self.answer()

    async def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()
        assert await self.ended() == -signal.SIGKILL

    async def ended(self) -> int | None:
        """Its exit code, once it has ended."""
        self._orders.close()
        await asyncio.to_thread(self._process.join)
        return self._process.exitcode


def next_order(orders: Connection) -> str:
    """In the worker: the next order; empty when there will be no more."""
    try:
        return str(orders.recv())
    except EOFError:
        return ""
