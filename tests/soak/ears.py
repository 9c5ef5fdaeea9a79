"""Everything that is logged, heard by one who only counts: lines, secrets in them, and errors nobody has dealt with."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.faults.environment import PASSWORD
from tests.soak.people import WORD

_LEVELS: Final = {
    "cache": logging.DEBUG,
    "companion": logging.DEBUG,
    "livekit": logging.INFO,  # that of a worker in production
    "asyncio": logging.WARNING,
    "aiohttp": logging.WARNING,
}
_KEPT: Final = 20  # kinds of errors that are told apart
_PLAIN: Final = frozenset(vars(logging.makeLogRecord({})))


class Ears(logging.Handler):
    """Hears the loggers of companion, cache, LiveKit and asyncio.

    Attributes:
        lines: how many were logged.
        secrets: how many of them hold a user's words or the password of Redis.
        errors: errors of asyncio and of the interpreter, which are those that nobody has dealt with, by their text.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines = 0
        self.secrets = 0
        self.errors: Counter[str] = Counter()
        self.telling: Counter[str] = Counter()
        """The lines with secrets, by what they are made from."""

    def emit(self, record: logging.LogRecord) -> None:
        extra = {name: value for name, value in vars(record).items() if name not in _PLAIN}
        text = f"{self.format(record)} {extra}"
        self.lines += 1
        if PASSWORD in text or WORD.search(text):
            self.secrets += 1
            self._note(self.telling, f"{record.name}: {record.msg}")
        if record.name == "asyncio" and record.levelno >= logging.ERROR:
            cause = record.exc_info[1] if record.exc_info else None
            self._note(self.errors, f"{record.getMessage().splitlines()[0]}: {cause!r}")

    @contextmanager
    def open(self) -> Iterator[None]:
        """Within this block, in which nobody else hears anything."""
        loggers = {logging.getLogger(name): level for name, level in _LEVELS.items()}
        before = [(logger, logger.level, logger.propagate) for logger in loggers]
        hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        for logger, level in loggers.items():
            logger.addHandler(self)
            logger.setLevel(level)
            logger.propagate = False
        try:
            yield
        finally:
            sys.unraisablehook = hook
            for logger, level, propagate in before:
                logger.removeHandler(self)
                logger.setLevel(level)
                logger.propagate = propagate

    def _unraisable(self, what: Any) -> None:
        self._note(self.errors, f"{what.err_msg or 'ignored'}: {what.exc_value!r}")

    @staticmethod
    def _note(where: Counter[str], text: str) -> None:
        text = text[:300]
        if text in where or len(where) < _KEPT:
            where[text] += 1
