"""Captures every log record of every logger down to DEBUG, extra attributes and tracebacks included."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from companion.voice.log_redaction import redact_logs

MARKER: Final = "kestrel"
"""Common prefix of all user markers."""
SECRET: Final = "s3cret"
"""Substring of every password and API key in these tests."""
_STANDARD_ATTRIBUTES: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_NO_ERRORS_FROM: Final = ("cache", "companion", "asyncio")


class LogCapture(logging.Handler):
    """Collects log lines that must not exist.

    Attributes:
        lines: number of records captured.
        leaks: records that contain a user marker or a secret.
        errors: ERROR records of the product, and of asyncio for exceptions that were never retrieved.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines = 0
        self.leaks: list[str] = []
        self.errors: list[str] = []
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        self.lines += 1
        text = self._formatter.format(record)
        more = [f" {name}={value!r}" for name, value in record.__dict__.items() if name not in _STANDARD_ATTRIBUTES]
        line = f"{record.name} {record.levelname} {text}{''.join(more)}"
        if MARKER in line or SECRET in line:
            self.leaks.append(line[:500])
        if record.levelno >= logging.ERROR and record.name.partition(".")[0] in _NO_ERRORS_FROM:
            self.errors.append(line[:2_000])


@contextmanager
def capture_logs() -> Iterator[LogCapture]:
    """Capture all loggers at DEBUG, overriding their levels, and restore their configuration afterwards."""
    redact_logs()
    log, root = LogCapture(), logging.getLogger()
    loggers = [root, *(one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    before = [(one, one.level, one.propagate, one.disabled) for one in loggers]
    for one in loggers:
        one.setLevel(logging.DEBUG if one is root else logging.NOTSET)
        one.propagate, one.disabled = True, False
    root.addHandler(log)
    try:
        yield log
    finally:
        root.removeHandler(log)
        for one, level, propagate, disabled in before:
            one.setLevel(level)
            one.propagate, one.disabled = propagate, disabled
