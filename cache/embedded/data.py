"""The files of a private redis-server, and moving away those that cannot be loaded."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, Final

logger = logging.getLogger("cache")
LOG: Final = "redis.log"
_DIRECTORY: Final = "appendonlydir"  # since Redis 7
_FILE: Final = "appendonly.aof"  # before; later servers move it into the directory


def set_aside(folder: Path, *names: str) -> Path | None:
    """Move data (all of it where no names are given) away, with the log that says why; replaces what was there before.

    Returns:
        Where it is; None if there was none.
    """
    found = [name for name in names or (_DIRECTORY, _FILE) if (folder / name).exists()]
    if not found:
        return None
    aside = folder / "set-aside"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    for name in (*found, LOG):
        shutil.move(folder / name, aside / name)
    return aside


def note_writer(folder: Path, info: dict[str, Any], aside: Path | None) -> None:
    """Note the name of the server that now writes the data; warn if the data before was moved ``aside``."""
    valkey = info.get("valkey_version")
    version = str(valkey or info["redis_version"])
    name = f"{'Valkey' if valkey else 'Redis'} {version}"
    if int(version.partition(".")[0]) < 7:  # it ignores the directory, which a later one would read as current
        aside = set_aside(folder, _DIRECTORY) or aside
    written_by = folder / "written-by"
    if aside:
        writer = written_by.read_text().strip() if written_by.exists() else "an unknown server"
        logger.warning("%s cannot load what %s wrote: moved to %s, the cache starts empty", name, writer, aside)
    written_by.write_text(f"{name}\n")
