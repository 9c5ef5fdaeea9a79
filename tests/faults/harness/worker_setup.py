"""Environment variables and log listeners of a worker under test."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import companion.offline.llm
from tests.conftest import OURS


def mute_logs() -> None:
    """Keep log lines out of the printed tables. Handlers added by listeners still receive them."""
    for name in ("livekit", "aiohttp", "asyncio", "companion", "cache"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
        logging.getLogger(name).propagate = False


@contextmanager
def worker_settings(**settings: str) -> Iterator[None]:
    """Set these variables and the offline model without pacing; remove the developer's settings."""
    settings = {"COMPANION_MODELS": "offline"} | settings
    with patch.dict(os.environ, settings), patch.object(companion.offline.llm, "PACE", 0.0):
        for name in os.environ.keys() - settings.keys():
            if name.startswith(OURS):
                del os.environ[name]
        yield


@contextmanager
def log_listener(note: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Call ``note`` with every record of the cache and companion loggers, at any level."""
    handler = logging.Handler()
    handler.emit = note  # type: ignore[method-assign] # a handler of one function
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
