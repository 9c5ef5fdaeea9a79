"""The spool: files in ``COMPANION_HOME`` with the writes that the store has not taken.

Each process adds files of its own, ``unstored/<random>.jsonl``, and holds the lock on those whose writes are still in
its queues (``file``). Any process may drain a file, while it holds the lock on it. A drained file is deleted. Every
write may be repeated, so a process that dies while it drains loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

from ...store import Memory, PersonErased, StoreError
from ..profile_write import Profile
from ..records import Write, to_line
from .file import SpoolFile, create_folder
from .lines import belongs_to_others, files_in, locked, owner_of, parsed, replace_lines, write_lines
from .wishes import WISH, Wishes

logger = logging.getLogger("companion")
_UNREADABLE: Final = ".unreadable"  # suffix of the lines that cannot be parsed
_UNFINISHED_FOR: Final = 60.0  # seconds after which a file without its final name has no writer any more
_MAX_SEARCHED: Final = 100  # files that a search for facts reads
_MAX_FAILURES: Final = 3  # in a row, after which the rest of a file is kept untried


class Spool:
    """The files in the folder ``unstored`` of ``home``. The folder is created when it is needed (mode 0700).

    Attributes:
        folder: the folder.
        wishes: to erase persons, which are in the folder too.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home / "unstored"
        self.wishes = Wishes(self.folder)

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
        """Log a line if no file can be written. To be called when a worker starts. Blocks."""
        try:
            create_folder(self.folder)
            with TemporaryFile(dir=self.folder) as file:
                file.write(b"\n")
        except OSError as problem:
            logger.warning(
                "COMPANION_HOME cannot be written (%s): what the store does not take is lost when its process ends",
                problem.strerror or type(problem).__name__,
            )

    def files(self) -> list[Path]:
        """The files of all processes, the oldest first."""
        return files_in(self.folder, ".jsonl")

    def facts(self, user_id: str) -> list[str]:
        """The facts of a user in the newest files, also in those that other processes hold, the newest last. Blocks."""
        writes = (write for _, write in self._of(user_id, self.files()[-_MAX_SEARCHED:]))
        found = [write for write in writes if isinstance(write, Memory)]
        return [fact.text for fact in sorted(found, key=lambda fact: fact.at)]

    def fields_of(self, user_id: str) -> list[dict[str, Any]]:
        """The lines of a user in all files, also in those that other processes hold, without the user id. Blocks."""
        found = [json.loads(line) for line, _ in self._of(user_id, self.files())]
        return [{name: value for name, value in fields.items() if name != "user_id"} for fields in found]

    def _of(self, user_id: str, files: Sequence[Path]) -> Iterator[tuple[str, Write]]:
        """The lines of a user that can be parsed, each with its write."""
        for path in files:
            with contextlib.suppress(OSError):
                readable, _ = parsed(path.read_text(encoding="utf-8", errors="replace").splitlines())
                yield from ((line, write) for line, user, write in readable if user == user_id)

    def recover(self) -> int:
        """Take back the lines that were moved aside and can be parsed, because a newer version wrote them. Blocks.

        During an upgrade, a process of the earlier version may drain a file of this one. Files that a killed process
        has not finished writing are deleted: the file of before is there still.

        Returns:
            The number of lines that are in files again.

        Raises:
            OSError: a file could not be read or written.
        """
        for path in files_in(self.folder, ".new"):
            with locked(path) as lines:
                if lines is not None and time.time() - path.stat().st_mtime > _UNFINISHED_FOR:
                    path.unlink()
        count = 0
        for path in files_in(self.folder, _UNREADABLE):
            with locked(path) as lines:
                readable, unreadable = parsed(lines or ())
                if readable and lines is not None:
                    self._add([line for line, _, _ in readable])
                    replace_lines(path, unreadable)
                    count += len(readable)
        return count

    async def drain(self, path: Path, store: Callable[[str, Write], Awaitable[None]]) -> tuple[int, StoreError | None]:
        """Store the writes of a file, one after the other.

        Writes that fail stay in the file, and so does the rest after a few failures in a row. What was written before
        the person was erased is dropped. Lines that cannot be parsed are moved to a file beside it. A file that another
        process holds, or has deleted, is left alone.

        Args:
            path: the file.
            store: stores one write of a user.

        Returns:
            The number of writes that were stored, and the last failure.

        Raises:
            OSError: the file cannot be read or written.
        """
        with locked(path) as lines:
            if lines is None:
                return 0, None
            readable, unreadable = parsed(lines)
            if unreadable:
                await asyncio.to_thread(write_lines, path.with_suffix(_UNREADABLE), unreadable)
                logger.error("%d lines of %s cannot be read: put aside", len(unreadable), path.name)
            rest, failures, erased, problem = [], 0, 0, None
            waiting: set[str] = set()  # users of whom a profile failed: the later ones stay behind it
            for line, user_id, write in readable:
                try:
                    if failures < _MAX_FAILURES and not (isinstance(write, Profile) and user_id in waiting):
                        await store(user_id, write)
                        failures = 0
                        continue
                except PersonErased:
                    erased += 1
                    continue
                except StoreError as failure:
                    problem = failure
                    failures += 1
                if isinstance(write, Profile):
                    waiting.add(user_id)
                rest.append(line)
            await asyncio.to_thread(replace_lines, path, rest)
            return len(readable) - len(rest) - erased, problem

    def remove(self, path: Path, user_id: str, write: Write) -> None:
        """Remove from a file a write that has been stored after all. Blocks.

        Its line, and not all that equals it: a turn equals the same one with the mark that it is skipped.

        Args:
            path: the file that ``add`` returned.
            user_id: whose write it is.
            write: the write.

        Raises:
            OSError: the file could not be written.
        """
        stored = to_line(user_id, write)
        with locked(path) as lines:
            if lines is not None:
                replace_lines(path, [line for line in lines if line != stored])

    def erase(self, user_id: str, number: int | None) -> None:
        """Remove from every file, of whatever kind, what may be a person's. Blocks.

        A line that cannot be read stays only if it is seen to be another person's. A file that another process holds
        is left to that process: the store refuses its lines.

        Args:
            user_id: the person.
            number: the number of the erasure; what was written in later conversations stays. None: all is removed.

        Raises:
            OSError: a file could not be read or written.
        """
        with contextlib.suppress(FileNotFoundError):
            for path in self.folder.iterdir():
                if path.suffix != WISH:
                    with locked(path) as lines:
                        if path.suffix == ".new" and lines is not None:
                            path.unlink()  # left behind by a killed process: the file of before is there still
                        elif lines is not None:
                            rest = [line for line in lines if belongs_to_others(line, user_id, number)]
                            if rest != lines:
                                replace_lines(path, rest)

    def unreadable(self) -> dict[str, str | None]:
        """The lines that cannot be parsed, each with its user id; None where that cannot be read either. Blocks."""
        found = {}
        for path in files_in(self.folder, _UNREADABLE):
            with locked(path) as lines:
                found.update({line: owner_of(line) for line in lines or ()})
        return found

    def discard(self, discarded: set[str]) -> None:
        """Remove lines that cannot be parsed. Blocks."""
        for path in files_in(self.folder, _UNREADABLE):
            with locked(path) as lines:
                if lines and not discarded.isdisjoint(lines):
                    replace_lines(path, [line for line in lines if line not in discarded])
