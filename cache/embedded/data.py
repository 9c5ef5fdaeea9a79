"""The files of a private redis-server, and moving away those that cannot be loaded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

LOG: Final = "redis.log"
DIRECTORY: Final = "appendonlydir"  # since Redis 7
FILE: Final = "appendonly.aof"  # before; later servers move it into the directory
_ASIDE: Final = "set-aside"
WRITER: Final = "written-by"
"""Names the server that wrote the data, such as ``Valkey 9.1.2``."""


def set_aside(folder: Path, *names: str) -> Path | None:
    """Move data away, with the log that says why, and replace what was moved away before.

    Returns:
        Where it is; None if there was none.
    """
    if not any((folder / name).exists() for name in names):
        return None
    aside = folder / _ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    for name in (*names, LOG):
        if (folder / name).exists():
            shutil.move(folder / name, aside / name)
    return aside
