"""What surrounds a conversation under test: its settings, and an ear for what is logged."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import companion.offline.llm
from tests.conftest import OURS


def silence() -> None:
    """Let no line of a log stand between the lines of a table. Who listens hears it all the same."""
    for name in ("livekit", "aiohttp", "asyncio", "companion", "cache"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
        logging.getLogger(name).propagate = False


@contextmanager
def environment(**settings: str) -> Iterator[None]:
    """These settings, the offline model at full speed, and none of the developer's settings."""
    settings = {"COMPANION_MODELS": "offline"} | settings
    with patch.dict(os.environ, settings), patch.object(companion.offline.llm, "PACE", 0.0):
        for name in os.environ.keys() - settings.keys():
            if name.startswith(OURS):
                del os.environ[name]
        yield


@contextmanager
def listening(note: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """``note`` is told every line that the cache and the companion log, whatever its level."""
    handler = logging.Handler()
    handler.emit = note  # type: ignore[method-assign] # one function is all there is to it
    loggers = [logging.getLogger(name) for name in ("cache", "companion")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
