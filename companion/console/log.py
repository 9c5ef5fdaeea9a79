"""The log of a console: one line a record, above the prompt."""

from __future__ import annotations

import logging

from ..voice.log_redaction import redact_handlers
from .screen import Screen


def show_log(screen: Screen, level: str) -> logging.Handler:
    """Show the log on ``screen``, from ``level`` on; tracebacks in a debugger's log only.

    Returns:
        The handler, to be given to :func:`hide_log`.
    """
    root, handler = logging.getLogger(), _Handler(screen)
    root.setLevel(level)
    root.addHandler(handler)
    logging.captureWarnings(True)
    redact_handlers()
    return handler


def hide_log(handler: logging.Handler) -> None:
    """Show nothing more."""
    logging.captureWarnings(False)
    logging.getLogger().removeHandler(handler)


class _Handler(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            verbose = logging.getLogger().getEffectiveLevel() <= logging.DEBUG
            text = self.format(record) if verbose else _line(record)
            if text == self._last:  # the console has two event loops, with a cache each
                return
            self._last = text
            if record.levelno >= logging.WARNING and not verbose:
                self._screen.warning(text)
            else:
                self._screen.note(f"{record.levelname} {record.name}: {text}")
        except Exception:
            self.handleError(record)


def _line(record: logging.LogRecord) -> str:
    text = record.getMessage()
    problem = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    return text if problem is None else f"{text} ({type(problem).__name__})"
