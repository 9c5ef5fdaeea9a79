"""Whether Redis is there, said once per change and counted each time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

logger = logging.getLogger("cache")


class Outage:
    """What an operator is told: one line when Redis goes, one when it is back.

    Args:
        place: the URL without credentials.
        on_error: called for each failure, told or not.
    """

    def __init__(self, place: str, on_error: Callable[[], None]) -> None:
        self._place = place
        self._on_error = on_error
        self._told = False
        self.known = asyncio.Event()
        """Set once it is known whether Redis is there."""

    def began(self, reason: str) -> None:
        """Redis is away, or still is. ``reason`` holds no credentials."""
        self._on_error()
        self.known.set()
        if not self._told:
            self._told = True
            logger.warning(
                "[REDIS] Warning: Connection failed (%s: %s). Continuing without the cache; "
                "it is used again as soon as Redis answers.",
                self._place,
                reason.partition("\n")[0][:160],
            )

    def ended(self) -> None:
        """Redis is there."""
        self._told = False
        self.known.set()
        logger.info("[REDIS] Connected (%s)", self._place)

    def unknown(self) -> None:
        """Nobody is looking any more."""
        self._told = False
        self.known.clear()
