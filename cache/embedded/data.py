"""The files of a private redis-server: which server wrote them, and what becomes of those another cannot load."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

_DIRECTORY: Final = "appendonlydir"  # since Redis 7
_FILE: Final = "appendonly.aof"  # before; later servers move it into the directory
LOG: Final = "redis.log"
_ASIDE: Final = "set-aside"
_WRITER: Final = "written-by"


class ServerData:
    """What the server of ``folder`` has written.

    Args:
        folder: the server's working directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.aside = folder / _ASIDE

    @property
    def writer(self) -> str:
        """The server that wrote it, such as ``Valkey 9.1.2``."""
        try:
            return (self._folder / _WRITER).read_text().strip()
        except OSError:
            return "an unknown server"

    @writer.setter
    def writer(self, name: str) -> None:
        (self._folder / _WRITER).write_text(f"{name}\n")

    @property
    def ambiguous(self) -> bool:
        """Whether there are both layouts, of which each server reads one, old or not."""
        return (self._folder / _DIRECTORY).exists() and (self._folder / _FILE).exists()

    def set_aside(self) -> bool:
        """Move everything out of the server's way, its log too, in place of what was moved before.

        Returns:
            Whether there was anything.
        """
        return self._set_aside(_DIRECTORY, _FILE, also=(LOG,))

    def set_aside_ignored(self, major_version: int) -> bool:
        """Move away what a server of this version does not look at, and a later one would take for current."""
        return major_version < 7 and self._set_aside(_DIRECTORY)

    def put_back(self) -> None:
        """Undo :meth:`set_aside`."""
        for path in self.aside.iterdir():
            shutil.rmtree(self._folder / path.name, ignore_errors=True)  # a directory would not be replaced
            path.rename(self._folder / path.name)
        self.aside.rmdir()

    def _set_aside(self, *names: str, also: tuple[str, ...] = ()) -> bool:
        if not any((self._folder / name).exists() for name in names):
            return False
        shutil.rmtree(self.aside, ignore_errors=True)
        self.aside.mkdir(mode=0o700)
        for name in (*names, *also):
            if (path := self._folder / name).exists():
                path.rename(self.aside / name)
        return True
