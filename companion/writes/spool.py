"""What the store would not take until the very end, in files of ``COMPANION_HOME``, for whoever starts next.

Each process writes files of its own, `unstored/<random>.jsonl`, and whoever reads one holds a lock on it. A file goes
when all of it is stored; every write in it may be repeated, so a reader that dies half-way does no harm.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from ..store import StoreError
from .records import Write, from_line, to_line

logger = logging.getLogger("companion")
_PATIENCE: Final = 3  # refusals in a row, until the rest of a file waits too


class Spool:
    """The files in the folder ``unstored`` of ``home``. The folder is made when it is needed (mode 0700)."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "unstored"

    def add(self, user_id: str, writes: Sequence[Write]) -> Path:
        """Put writes of one user into a file of their own, and return it. Blocks. Raises OSError."""
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        path = self.folder / f"{uuid4().hex}.jsonl"
        _write(path, [to_line(user_id, write) for write in writes])
        return path

    def files(self) -> list[Path]:
        """The files there are, the oldest first."""
        try:
            found = [(path.stat().st_mtime_ns, path) for path in self.folder.iterdir() if path.suffix == ".jsonl"]
        except OSError:
            return []
        return [path for _, path in sorted(found)]

    async def drain(self, path: Path, store: Callable[[str, Write], Awaitable[None]]) -> tuple[int, StoreError | None]:
        """Let ``store`` have what is in a file, one after the other.

        What it refuses stays in the file, and so does the rest after a few refusals in a row. Lines that cannot be read
        are put aside, in a file beside it. A file that another process is reading, or has just removed, is left to it.

        Returns:
            How many it took, and the last refusal.

        Raises:
            OSError: the file cannot be read or written.
        """
        with _locked(path) as lines:
            if lines is None:
                return 0, None
            readable, unreadable = _sorted(lines)
            if unreadable:
                await asyncio.to_thread(_write, path.with_suffix(".unreadable"), unreadable)
                logger.error("%d lines of %s cannot be read: put aside", len(unreadable), path.name)
            left, in_vain, problem = [], 0, None
            for line, user_id, write in readable:
                try:
                    if in_vain < _PATIENCE:
                        await store(user_id, write)
                        in_vain = 0
                        continue
                except StoreError as refusal:
                    problem = refusal
                    in_vain += 1
                left.append(line)
            await asyncio.to_thread(_replace, path, left)
            return len(readable) - len(left), problem

    def remove(self, path: Path, write: Write) -> None:
        """This write, which :meth:`add` put into ``path``, has been stored after all. Blocks. Raises OSError."""
        with _locked(path) as lines:
            if lines is not None:
                _replace(path, [line for line in lines if from_line(line)[1] != write])


def _sorted(lines: Sequence[str]) -> tuple[list[tuple[str, str, Write]], list[str]]:
    """Those that can be read, each with what it says, and those that cannot."""
    readable, unreadable = [], []
    for line in lines:
        try:
            readable.append((line, *from_line(line)))
        except ValueError:
            unreadable.append(line)
    return readable, unreadable


def _replace(path: Path, lines: Sequence[str]) -> None:
    """Let these be the lines of the file. Under the same name: who waits for its lock sees that it is another file."""
    if lines:
        _write(path, lines)
    else:
        path.unlink()


def _write(path: Path, lines: Sequence[str]) -> None:
    """The whole file or nothing of it, for its owner alone."""
    new = path.with_suffix(".new")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


@contextmanager
def _locked(path: Path) -> Iterator[list[str] | None]:
    """The lines of the file while nobody else reads it; None where somebody does, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    with open(descriptor, encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.path.samestat(os.fstat(descriptor), path.stat())
        except OSError:
            same = False
        yield file.read().splitlines() if same else None
