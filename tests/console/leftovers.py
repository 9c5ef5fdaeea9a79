"""Leak check for processes that a companion started."""

from __future__ import annotations

from pathlib import Path

import psutil


def working_in(home: Path) -> list[str]:
    """The names of the processes that belong to this home: the private redis-server and its supervisor."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and (
                process.cwd() == str(home / "redis") or str(home) in " ".join(process.cmdline())
            ):
                found.append(process.name())
        except psutil.Error:
            continue
    return found
