"""One run: quick or full, the redis-servers it started, what it has found so far."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.real.redis_server import RedisServer

from .figures import Goal, table

T = TypeVar("T")


class Bench:
    """Hands out redis-servers, prints, and keeps the goals for the end.

    Args:
        quick: fewer rounds, a smaller keyspace.
    """

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.goals: list[Goal] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def server(self, *args: str) -> RedisServer:
        """A redis-server on loopback TCP, empty, without persistence; it lives until the run ends."""
        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        return self._open.enter_context(RedisServer(Path(folder), args=list(args)))

    def pick(self, full: T, quick: T) -> T:
        """One of two, by the kind of run."""
        return quick if self.quick else full

    def title(self, text: str, note: str = "") -> None:
        """Begin a part of the report."""
        print(f"\n## {text}\n" + (f"\n{note}\n" if note else ""), flush=True)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table."""
        print(table(head, rows), flush=True)

    def note(self, text: str) -> None:
        """Print a line below a table."""
        print(f"\n{text}", flush=True)

    def goal(self, what: str, reach: str, measured: str, reached: bool) -> None:
        """Note down a row of the table at the end."""
        self.goals.append(Goal(what, reach, measured, bool(reached)))
