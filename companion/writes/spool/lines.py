"""The lines of the spool's files: whose they are, and how a file is found, and read and replaced under its lock."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...file_lock import KEEPS_LOCK, lock
from ..records import Write, from_line

# What to_line begins a line with: all that is left of a line whose writing was cut short.
_BEGINNING: Final = re.compile(r'\{"user_id": "([^"\\]+)", "kind": ')


def files_in(folder: Path, suffix: str) -> list[Path]:
    """The files with this suffix, the oldest first."""
    try:
        dated = [(path.stat().st_mtime_ns, path) for path in folder.iterdir() if path.suffix == suffix]
    except OSError:
        return []
    return [path for _, path in sorted(dated)]


def owner_of(line: str) -> str | None:
    """The user id in a line, also in one that cannot be parsed; None where it is not readable."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        found = _BEGINNING.match(line)
        return found[1] if found and line.count('"user_id"') == 1 else None
    user_id = fields.get("user_id") if isinstance(fields, dict) else None
    return user_id if isinstance(user_id, str) else None


def belongs_to_others(line: str, user_id: str, number: int | None) -> bool:
    """Whether a line may stay when a person is erased: it is another person's, or it was written after that.

    Args:
        line: the line.
        user_id: the person.
        number: the number of the erasure; None if all lines of the person are older.
    """
    try:
        owner, write = from_line(line)
    except ValueError:
        owner_or_none = owner_of(line)
        return owner_or_none is not None and owner_or_none != user_id and f'"{user_id}"' not in line
    return owner != user_id or (number is not None and write.since >= number)


def parsed(lines: Sequence[str]) -> tuple[list[tuple[str, str, Write]], list[str]]:
    """The lines that can be parsed, each with its user id and write, and the others."""
    readable, unreadable = [], []
    for line in lines:
        try:
            readable.append((line, *from_line(line)))
        except ValueError:
            unreadable.append(line)
    return readable, unreadable


def replace_lines(path: Path, lines: Sequence[str]) -> None:
    """Make these the lines of the file: another file of the same name, or none. ``locked`` notices that."""
    if lines:
        write_lines(path, lines)
    else:
        path.unlink()


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write the file as a whole or not at all, readable by its owner alone."""
    new = path.with_suffix(".new")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            lock(file.fileno(), wait=True)  # so that no other process takes it for one that was left behind
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path) -> Iterator[list[str] | None]:
    """The lines of the file, under its lock; None where another process holds the lock, or has deleted the file."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    with open(descriptor, encoding="utf-8", errors="replace") as file:
        try:
            lock(descriptor)
            same = os.path.samestat(os.fstat(descriptor), path.stat())
        except OSError:
            same = False
        lines = file.read().splitlines() if same else None
        if KEEPS_LOCK:
            yield lines
    if not KEEPS_LOCK:  # the caller may replace or delete the file
        yield lines
