"""Wishes to erase a person: files of the spool, each there until the erasure is done."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .file import create_folder
from .lines import files_in, write_lines

WISH: Final = ".erase"
"""Suffix of such a file; it holds the person's user ids, with a NUL between them."""


class Wishes:
    """The wishes in a folder.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, user_ids: Sequence[str], request: str) -> Path:
        """Keep the wish to erase a person, until it is done. Blocks.

        Args:
            user_ids: the ids of the person, in the order in which they are to be erased.
            request: names the request.

        Returns:
            The file.

        Raises:
            OSError: it could not be written.
        """
        create_folder(self._folder)
        path = self._folder / f"{request}{WISH}"
        write_lines(path, ["\0".join(user_ids)])
        return path

    def all(self) -> list[tuple[Path, list[str], str]]:
        """The wishes that are kept, each with its user ids and the name of the request. Blocks."""
        kept = []
        for path in files_in(self._folder, WISH):
            with contextlib.suppress(OSError):
                user_ids = path.read_bytes().decode("utf-8", errors="replace").removesuffix("\n").split("\0")
                kept.append((path, user_ids, path.stem))
        return kept
