"""Whoever reads the log: every record of every logger, down to DEBUG, with all that hangs on it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from companion.voice.log_redaction import keep_logs_private

MARK: Final = "kestrel"
"""What the marks of all people begin with."""
SECRET: Final = "s3cret"
"""What stands in every password and key of these tests."""
_USUAL: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_MUST_NOT_FAIL: Final = ("cache", "companion", "asyncio")


class Ear(logging.Handler):
    """Notes what should not be in a log.

    Attributes:
        lines: records heard.
        telling: those in which a mark or a secret stands.
        failures: errors of ours, and tasks whose exception nobody looked at.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines = 0
        self.telling: list[str] = []
        self.failures: list[str] = []
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        self.lines += 1
        text = self._formatter.format(record)
        more = [f" {name}={value!r}" for name, value in record.__dict__.items() if name not in _USUAL]
        line = f"{record.name} {record.levelname} {text}{''.join(more)}"
        if MARK in line or SECRET in line:
            self.telling.append(line[:500])
        if record.levelno >= logging.ERROR and record.name.partition(".")[0] in _MUST_NOT_FAIL:
            self.failures.append(line[:2_000])


@contextmanager
def listening() -> Iterator[Ear]:
    """Hear all there is, whatever the loggers were set to, as an operator does who set everything to DEBUG."""
    keep_logs_private()
    ear, root = Ear(), logging.getLogger()
    loggers = [root, *(one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    before = [(one, one.level, one.propagate, one.disabled) for one in loggers]
    for one in loggers:
        one.setLevel(logging.DEBUG if one is root else logging.NOTSET)
        one.propagate, one.disabled = True, False
    root.addHandler(ear)
    try:
        yield ear
    finally:
        root.removeHandler(ear)
        for one, level, propagate, disabled in before:
            one.setLevel(level)
            one.propagate, one.disabled = propagate, disabled
