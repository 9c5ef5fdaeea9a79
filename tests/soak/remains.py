"""What is open in this process, and what has been left behind since."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Self

import psutil

from tests.faults.environment import connections_to


@dataclass(frozen=True)
class Remains:
    """How many there are of each, but for the running task."""

    connections: int
    tasks: tuple[str, ...]
    files: int
    threads: tuple[str, ...]
    processes: int

    @classmethod
    def now(cls, port: int) -> Self:
        """At this moment; ``port`` is that of Redis."""
        me = psutil.Process()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        return cls(
            connections=connections_to(port),
            tasks=tuple(sorted(task.get_name() for task in tasks)),
            files=me.num_fds(),
            # Those of the loop's own pool are as many as were ever needed at once, and never more than a few.
            threads=tuple(sorted(one.name for one in threading.enumerate() if not one.name.startswith("asyncio_"))),
            processes=len(me.children(recursive=True)),
        )

    def since(self, before: Remains) -> list[str]:
        """What is left, in words."""
        left = [f"{self.connections} connections to Redis"] if self.connections else []
        if new := [name for name in self.tasks if name not in before.tasks]:
            left.append(f"tasks {', '.join(new)}")
        if self.files > before.files:
            left.append(f"{self.files - before.files} open files")
        if new := [name for name in self.threads if name not in before.threads]:
            left.append(f"threads {', '.join(new)}")
        if self.processes > before.processes:
            left.append(f"{self.processes - before.processes} processes")
        return left
