"""One benchmark run: its mode, its redis-servers, and the targets measured so far."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import yaml

from benchmarks.figures import Target, table
from tests.real.redis.redis_server import RedisServer

T = TypeVar("T")


def compose_settings() -> list[str]:
    """The redis-server settings of the deployment that compose.yaml describes."""
    services = yaml.safe_load((Path(__file__).parent.parent / "compose.yaml").read_text())["services"]
    server, *settings = map(str, services["redis"]["command"])
    if server != "redis-server":
        raise ValueError("compose.yaml starts no redis-server")
    return settings


class Bench:
    """Starts redis-servers, prints tables, and collects the targets.

    Args:
        quick: whether to run fewer rounds and a smaller keyspace.
    """

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.targets: list[Target] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def server(self, *args: str) -> RedisServer:
        """Start an empty redis-server on loopback TCP, with the settings of compose.yaml and these.

        It is stopped when the run ends.
        """
        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        return self._open.enter_context(RedisServer(Path(folder), args=[*compose_settings(), *args]))

    def pick(self, full: T, quick: T) -> T:
        """Choose by the mode of the run."""
        return quick if self.quick else full

    def title(self, text: str, note: str = "") -> None:
        """Print the heading of a section."""
        print(f"\n## {text}\n" + (f"\n{note}\n" if note else ""), flush=True)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table."""
        print(table(head, rows), flush=True)

    def note(self, text: str) -> None:
        """Print a line below a table."""
        print(f"\n{text}", flush=True)

    def target(self, what: str, threshold: str, measured: str, met: bool) -> None:
        """Record one row of the table of targets."""
        self.targets.append(Target(what, threshold, measured, bool(met)))
