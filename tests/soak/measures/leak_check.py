"""Compares the open resources of this process before and after a run."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Self

import psutil

from tests.faults.harness.environment import connections_to


@dataclass(frozen=True)
class OpenResources:
    """Open resources by kind, without the running task."""

    connections: int
    tasks: tuple[str, ...]
    files: int
    threads: tuple[str, ...]
    processes: int

    @classmethod
    def now(cls, port: int) -> Self:
        """Take inventory; ``port`` is that of Redis."""
        me = psutil.Process()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        return cls(
            connections=connections_to(port),
            tasks=tuple(sorted(task.get_name() for task in tasks)),
            files=me.num_fds(),
            # The loop's default executor keeps the few threads that it once needed.
            threads=tuple(sorted(one.name for one in threading.enumerate() if not one.name.startswith("asyncio_"))),
            processes=len(me.children(recursive=True)),
        )

    def leaked_since(self, before: OpenResources) -> list[str]:
        """Describe the resources that were not open ``before``."""
        leaked = [f"{self.connections} connections to Redis"] if self.connections else []
        if new := [name for name in self.tasks if name not in before.tasks]:
            leaked.append(f"tasks {', '.join(new)}")
        if self.files > before.files:
            leaked.append(f"{self.files - before.files} open files")
        if new := [name for name in self.threads if name not in before.threads]:
            leaked.append(f"threads {', '.join(new)}")
        if self.processes > before.processes:
            leaked.append(f"{self.processes - before.processes} processes")
        return leaked
