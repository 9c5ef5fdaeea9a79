"""Reads ``.env.local`` and ``.env`` into the environment, as LiveKit's starter does.

What is set wins over ``.env.local``, and that over ``.env``; a variable that is set to nothing counts as unset. Of each
name the nearest file counts, from the working directory upwards.
"""

from __future__ import annotations

import codecs
import stat
from collections.abc import Iterator, MutableMapping
from io import StringIO
from pathlib import Path
from typing import Final

from dotenv.main import resolve_variables
from dotenv.parser import parse_stream

from cache import CacheConfigError

NAMES: Final = (".env.local", ".env")
_MAX_BYTES: Final = 1 << 20
_ENCODINGS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def load_env_files(environ: MutableMapping[str, str], prefixes: tuple[str, ...]) -> None:
    """Set what the files say and ``environ`` does not.

    Args:
        environ: the environment.
        prefixes: of the variables that this program reads: a line about one must be readable.

    Raises:
        CacheConfigError: a file cannot be read, or a line of it about such a variable.
    """
    if environ.get("PYTHON_DOTENV_DISABLED", "").casefold() in ("1", "true", "t", "yes", "y"):  # as python-dotenv
        return
    try:
        here = Path.cwd()
    except OSError:  # the working directory is gone; what needs one says so
        return
    for name in NAMES:
        if (path := _nearest(here, name)) is not None:
            for variable, value in _variables(path, prefixes):
                if value and not environ.get(variable, "").strip():
                    _set(environ, variable, value, path)


def _nearest(folder: Path, name: str) -> Path | None:
    for path in (each / name for each in (folder, *folder.parents)):
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(mode) or stat.S_ISFIFO(mode):  # a secrets manager may serve a pipe
            return path
    return None


def _variables(path: Path, prefixes: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    text = _decoded(path)
    pairs = []
    for binding in parse_stream(StringIO(text)):
        if binding.error and _names(binding.original.string, prefixes):
            raise CacheConfigError(
                f"{path}, line {binding.original.line}: this is not NAME=value; is a quotation mark missing?"
            )
        if binding.key is not None:
            pairs.append((binding.key, binding.value))
    yield from resolve_variables(pairs, override=False).items()


def _names(line: str, prefixes: tuple[str, ...]) -> bool:
    return line.strip().removeprefix("export").lstrip(" \t'\"").startswith(prefixes)


def _decoded(path: Path) -> str:
    """The text of a file in UTF-8 or with a byte order mark, with the line ends of any system."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as problem:
        raise CacheConfigError(f"{path} cannot be read: {problem.strerror or type(problem).__name__}.") from None
    if len(content) > _MAX_BYTES:
        raise CacheConfigError(f"{path} is no file of variables: it has more than a megabyte.")
    encoding = next((name for mark, name in _ENCODINGS if content.startswith(mark)), _guessed(content))
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as problem:
        line = content[: problem.start].count(b"\n") + 1
        raise CacheConfigError(f"{path}, line {line}: this is not UTF-8. Save the file as UTF-8.") from None
    if "\0" in text:
        raise CacheConfigError(f"{path} is no text file: it contains a null character. Save it as UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")


def _guessed(content: bytes) -> str:
    """The encoding of a text without a byte order mark: UTF-16 where every other byte of its beginning is null."""
    if b"\0" in content[:2]:
        return "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    return "utf-8"


def _set(environ: MutableMapping[str, str], variable: str, value: str, path: Path) -> None:
    try:
        environ[variable] = value
    except (ValueError, OSError):  # a name or a value that no environment can hold
        raise CacheConfigError(f"{path}: the variable {variable!r:.60} cannot be set.") from None
