"""Captures all log records and counts lines, leaked secrets and unhandled errors."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.faults.harness.environment import PASSWORD
from tests.soak.sessions.personas import MARKER

_LEVELS: Final = {
    "cache": logging.DEBUG,
    "companion": logging.DEBUG,
    "livekit": logging.INFO,  # the level of a worker in production
    "asyncio": logging.WARNING,
    "aiohttp": logging.WARNING,
}
_MAX_KINDS: Final = 20  # different texts kept
_STANDARD_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({})))


class LogCapture(logging.Handler):
    """Captures the loggers of companion, cache, LiveKit and asyncio.

    Attributes:
        lines: number of records.
        leak_count: records that contain a user's marker or the password of Redis.
        errors: unhandled errors reported by asyncio and the interpreter, by text.
        leaks: records with secrets, by format string.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines = 0
        self.leak_count = 0
        self.errors: Counter[str] = Counter()
        self.leaks: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}
        text = f"{self.format(record)} {extra}"
        self.lines += 1
        if PASSWORD in text or MARKER.search(text):
            self.leak_count += 1
            self._add(self.leaks, f"{record.name}: {record.msg}")
        if record.name == "asyncio" and record.levelno >= logging.ERROR:
            cause = record.exc_info[1] if record.exc_info else None
            self._add(self.errors, f"{record.getMessage().splitlines()[0]}: {cause!r}")

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Capture within this block, and keep records from all other handlers."""
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
        self._add(self.errors, f"{what.err_msg or 'ignored'}: {what.exc_value!r}")

    @staticmethod
    def _add(counter: Counter[str], text: str) -> None:
        text = text[:300]
        if text in counter or len(counter) < _MAX_KINDS:
            counter[text] += 1
