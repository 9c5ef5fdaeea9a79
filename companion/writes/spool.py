"""The spool: files in ``COMPANION_HOME`` with the writes that the store has not taken.

Each process adds files of its own, ``unstored/<random>.jsonl``, and holds the lock on those whose writes are still in
its queues (``spool_file``). Any process may drain a file, while it holds the lock on it. A drained file is deleted.
Every write may be repeated, so a process that dies while it drains loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from ..store import Memory, StoreError
from .profile_write import Profile
from .records import Write, from_line, to_line
from .spool_file import SpoolFile, create_folder

logger = logging.getLogger("companion")
_UNREADABLE: Final = ".unreadable"  # suffix of the lines that cannot be parsed
_UNFINISHED_FOR: Final = 60.0  # seconds after which a file without its final name has no writer any more
_MAX_SEARCHED: Final = 100  # files that a search for facts reads
_MAX_FAILURES: Final = 3  # in a row, after which the rest of a file is kept untried


class Spool:
    """The files in the folder ``unstored`` of ``home``. The folder is created when it is needed (mode 0700)."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "unstored"

    def new_file(self) -> SpoolFile:
        """A file for the writes of one user, which does not exist until it has lines."""
        return SpoolFile(self.folder)

    def add(self, user_id: str, writes: Sequence[Write]) -> Path:
        """Write a new file, which any process may drain at once. Blocks.

        Args:
            user_id: whose data it is.
            writes: what the file is to hold.

        Returns:
            The file.

        Raises:
            OSError: it could not be written.
        """
        return self._add([to_line(user_id, write) for write in writes])

    def _add(self, lines: Sequence[str]) -> Path:
        file = self.new_file()
        file.hold(lines)
        return file.release()

    def check(self) -> None:
        """Try whether a file can be written. Blocks.

        Raises:
            OSError: it cannot.
        """
        create_folder(self.folder)
        with TemporaryFile(dir=self.folder) as file:
            file.write(b"\n")

    def files(self) -> list[Path]:
        """The files of all processes, the oldest first."""
        return self._found(".jsonl")

    def facts(self, user_id: str) -> list[str]:
        """The facts of a user in the newest files, also in those that other processes hold, the newest last. Blocks."""
        found = []
        for path in self.files()[-_MAX_SEARCHED:]:
            with contextlib.suppress(OSError):
                readable, _ = _parsed(path.read_text(encoding="utf-8", errors="replace").splitlines())
                found += [write for _, user, write in readable if user == user_id and isinstance(write, Memory)]
        return [fact.text for fact in sorted(found, key=lambda fact: fact.at)]

    def recover(self) -> int:
        """Take back the lines that were moved aside and can be parsed, because a newer version wrote them. Blocks.

        During an upgrade, a process of the earlier version may drain a file of this one. Files that a killed process
        has not finished writing are deleted: the file of before is there still.

        Returns:
            The number of lines that are in files again.

        Raises:
            OSError: a file could not be read or written.
        """
        for path in self._found(".new"):
            with _locked(path) as lines:
                if lines is not None and time.time() - path.stat().st_mtime > _UNFINISHED_FOR:
                    path.unlink()
        count = 0
        for path in self._found(_UNREADABLE):
            with _locked(path) as lines:
                readable, unreadable = _parsed(lines or ())
                if readable and lines is not None:
                    self._add([line for line, _, _ in readable])
                    _replace(path, unreadable)
                    count += len(readable)
        return count

    def _found(self, suffix: str) -> list[Path]:
        try:
            found = [(path.stat().st_mtime_ns, path) for path in self.folder.iterdir() if path.suffix == suffix]
        except OSError:
            return []
        return [path for _, path in sorted(found)]

    async def drain(self, path: Path, store: Callable[[str, Write], Awaitable[None]]) -> tuple[int, StoreError | None]:
        """Store the writes of a file, one after the other.

        Writes that fail stay in the file, and so does the rest after a few failures in a row. Lines that cannot be
        parsed are moved to a file beside it. A file that another process holds, or has deleted, is left alone.

        Args:
            path: the file.
            store: stores one write of a user.

        Returns:
            The number of writes that were stored, and the last failure.

        Raises:
            OSError: the file cannot be read or written.
        """
        with _locked(path) as lines:
            if lines is None:
                return 0, None
            readable, unreadable = _parsed(lines)
            if unreadable:
                await asyncio.to_thread(_write, path.with_suffix(_UNREADABLE), unreadable)
                logger.error("%d lines of %s cannot be read: put aside", len(unreadable), path.name)
            rest, failures, problem = [], 0, None
            waiting: set[str] = set()  # users of whom a profile failed: the later ones stay behind it
            for line, user_id, write in readable:
                try:
                    if failures < _MAX_FAILURES and not (isinstance(write, Profile) and user_id in waiting):
                        await store(user_id, write)
                        failures = 0
                        continue
                except StoreError as failure:
                    problem = failure
                    failures += 1
                if isinstance(write, Profile):
                    waiting.add(user_id)
                rest.append(line)
            await asyncio.to_thread(_replace, path, rest)
            return len(readable) - len(rest), problem

    def remove(self, path: Path, write: Write) -> None:
        """Remove from a file a write that has been stored after all. Blocks.

        Args:
            path: the file that ``add`` returned.
            write: the write.

        Raises:
            OSError: the file could not be written.
        """
        with _locked(path) as lines:
            if lines is not None:
                _replace(path, [line for line in lines if from_line(line)[1] != write])


def _parsed(lines: Sequence[str]) -> tuple[list[tuple[str, str, Write]], list[str]]:
    """The lines that can be parsed, each with its user id and write, and the others."""
    readable, unreadable = [], []
    for line in lines:
        try:
            readable.append((line, *from_line(line)))
        except ValueError:
            unreadable.append(line)
    return readable, unreadable


def _replace(path: Path, lines: Sequence[str]) -> None:
    """Make these the lines of the file: another file of the same name, or none. ``_locked`` notices that."""
    if lines:
        _write(path, lines)
    else:
        path.unlink()


def _write(path: Path, lines: Sequence[str]) -> None:
    """Write the file as a whole or not at all, readable by its owner alone."""
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
    """The lines of the file, under its lock; None where another process holds the lock, or has deleted the file."""
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
