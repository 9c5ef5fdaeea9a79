"""One file of the spool, held by the process that writes it: locked until the process releases it, or dies.

The lock belongs to the open file, so the kernel releases it after ``kill -9`` too. Then the file is one like any other,
and the next process that replays the spool drains it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

from ...file_lock import BINARY, KEEPS_LOCK, lock

_MODE: Final = 0o600


class SpoolFile:
    """A file of ``folder``, which exists while it has lines.

    Every method blocks, and one thread at a time may call them.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{uuid4().hex}.jsonl"
        self._descriptor: int | None = None
        self._lines: list[str] = []

    def hold(self, lines: Sequence[str]) -> None:
        """Make these the lines of the file, on the disk when this returns.

        Args:
            lines: all lines of the file. None: the file is deleted.

        Raises:
            OSError: they could not be written. The lines of before may be there still, or some of the new ones.
        """
        if not lines:
            self._delete()
        elif not self._is_ours():
            self._replace(lines)
        elif list(lines) != self._lines:
            known = len(self._lines)
            if known and list(lines[:known]) == self._lines:
                self._append(lines[known:])
            else:
                self._replace(lines)
        self._lines = list(lines)

    def release(self) -> Path:
        """Let other processes drain the file; this object holds none any more.

        Returns:
            The file.
        """
        self._close()
        self._lines = []
        return self._path

    def _is_ours(self) -> bool:
        """Whether there is a file, and it is the one that is locked: it may have been deleted with its folder."""
        if self._descriptor is None:
            return False
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        return False

    def _append(self, lines: Sequence[str]) -> None:
        assert self._descriptor is not None
        self._lines = []  # after a failure the file's end is unknown: the next call writes it anew
        _write(self._descriptor, lines)

    def _replace(self, lines: Sequence[str]) -> None:
        """Write the file as a whole or not at all; the new one is locked before it has the name of the old one."""
        create_folder(self._path.parent)
        new = self._path.with_suffix(".new")
        descriptor = _open(new, os.O_CREAT | os.O_TRUNC)
        try:
            lock(descriptor)
            _write(descriptor, lines)
            if KEEPS_LOCK:
                new.replace(self._path)
        except OSError:
            os.close(descriptor)
            new.unlink(missing_ok=True)
            raise
        self._close()
        self._descriptor = descriptor if KEEPS_LOCK else self._renamed(descriptor, new)

    def _renamed(self, descriptor: int, new: Path) -> int:
        """Give the file its name while it is closed, where an open one cannot have another."""
        os.close(descriptor)
        new.replace(self._path)
        descriptor = _open(self._path)
        with contextlib.suppress(OSError):  # another process has it already, and stores what is in it
            lock(descriptor)
        return descriptor

    def _delete(self) -> None:
        ours = self._is_ours()
        if not KEEPS_LOCK:
            self._close()
        if ours:
            self._path.unlink()
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def create_folder(folder: Path) -> None:
    """Create the spool's folder, and the one it is in, for their owner alone.

    Raises:
        OSError: it cannot be created.
    """
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def _open(path: Path, more: int = 0) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | BINARY | more, _MODE)


def _write(descriptor: int, lines: Sequence[str]) -> None:
    left = memoryview("".join(f"{line}\n" for line in lines).encode("utf-8"))
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)
