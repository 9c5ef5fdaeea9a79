"""The files of a private redis-server, and moving away those that cannot be loaded."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, Final

logger = logging.getLogger("cache")
LOG: Final = "redis.log"


def set_aside(folder: Path, data: str = "appendonly*") -> Path | None:
    """Move data away, with the log that says why; replaces what was there before. None if there is no data."""
    found = list(folder.glob(data))
    if not found:
        return None
    aside = folder / "set-aside"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    for path in (*found, folder / LOG):
        path.rename(aside / path.name)
    return aside


def note_writer(folder: Path, info: dict[str, Any], aside: Path | None) -> None:
    """Note the name of the server that now writes the data; warn if the data before was moved ``aside``."""
    redis, valkey = str(info["redis_version"]), info.get("valkey_version")
    name = f"Valkey {valkey}" if valkey else f"Redis {redis}"
    if int(redis.partition(".")[0]) < 7:  # it ignores this directory, which a later one would read as current
        aside = set_aside(folder, "appendonlydir") or aside
    written_by = folder / "written-by"
    if aside:
        writer = written_by.read_text().strip() if written_by.exists() else "an unknown server"
        logger.warning("%s cannot load what %s wrote: moved to %s, the cache starts empty", name, writer, aside)
    written_by.write_text(f"{name}\n")
