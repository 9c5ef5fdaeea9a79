"""The data files of a private redis-server: which server wrote them, and moving away those that cannot be loaded."""

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
    """The data files in ``folder``.

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
        """Whether both layouts are there: a server reads the one of its version, which may be the older data."""
        return (self._folder / _DIRECTORY).exists() and (self._folder / _FILE).exists()

    def set_aside(self) -> bool:
        """Move the data away, with the log that says why, and replace what was moved away before.

        Returns:
            Whether there was any data.
        """
        return self._set_aside(_DIRECTORY, _FILE, also=(LOG,))

    def set_aside_ignored(self, major_version: int) -> bool:
        """Move away the layout that this version ignores: a later version would read it as current."""
        return major_version < 7 and self._set_aside(_DIRECTORY)

    def put_back(self) -> None:
        """Undo :meth:`set_aside`."""
        for path in self.aside.iterdir():
            shutil.rmtree(self._folder / path.name, ignore_errors=True)  # rename does not replace directories
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
