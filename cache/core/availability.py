"""What an operator is told: one line when Redis goes, one when it is back, one when it refuses, each counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

logger = logging.getLogger("cache")
_PATIENCE: Final = 0.5
"""Seconds for which Redis may be silent or slow before that is worth a line. A lost connection is told at once."""
_QUIET: Final = 3.0
"""Seconds without it after which a trouble is over."""


class Availability:
    """Whether Redis is there, and what is wrong with it while it is.

    Args:
        place: the URL without credentials.
        on_error: called for each failure, told or not.
    """

    def __init__(self, place: str, on_error: Callable[[], None]) -> None:
        self._place = place
        self._on_error = on_error
        self._told = False
        self._troubles: dict[str, tuple[float, int]] = {}  # when it was last seen, and how often
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
        self._troubles.clear()
        self.known.clear()

    def trouble(self, what: str, now: float, line: str) -> None:
        """Redis is there, and something is wrong all the same.

        Args:
            what: a few words that name it; the same ones each time.
            now: the loop's time, in seconds.
            line: what the log says when it begins.
        """
        _, times = self._troubles.get(what, (0.0, 0))
        self._troubles[what] = now, times + 1
        if not times:
            logger.warning("[REDIS] Warning: %s", line)

    def look(self, now: float, answered: float | None, reason: str) -> None:
        """To be called a few times a second: tells what nobody is called for.

        Args:
            now: the loop's time, in seconds.
            answered: when Redis was last known to answer, or to be looked for; None if it answers now.
            reason: why it does not.
        """
        if answered is None:
            if self._told:
                self.ended()
        elif not self._told and now - answered > _PATIENCE:
            self.began(reason)
        for what, (seen, times) in list(self._troubles.items()):
            if now - seen > _QUIET:
                del self._troubles[what]
                logger.info("[REDIS] No more: %s (%d times)", what, times)
