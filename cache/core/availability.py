"""Rate-limited availability logging: one line when Redis goes away, one when it is back, one per kind of rejection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Set
from typing import Final

from ..background import loop_time
from ..transport.handshake import REMEDIES

logger = logging.getLogger("cache")
_TOLERANCE: Final = 0.5
"""Seconds for which Redis may be silent or slow before that is logged. A lost connection is logged at once."""
_QUIET: Final = 3.0
"""Seconds without a failure of one kind after which it counts as over."""


class Availability:
    """Whether Redis answers, and which failures it has while it does.

    Args:
        address: the URL without credentials.
        on_error: called for each failure, logged or not.
        remedies: reasons that say what to change: logged also when the outage began with another one.

    Attributes:
        known: set once it is known whether Redis answers.
    """

    def __init__(self, address: str, on_error: Callable[[], None], remedies: Set[str] = REMEDIES) -> None:
        self.known = asyncio.Event()
        self._address = address
        self._on_error = on_error
        self._logged = ""  # what was logged last: that Redis is "up", "partly down", or "down"
        self._ended_at = -_QUIET  # loop time of the end of the last outage that was logged
        self._refused: dict[str, str] = {}
        self._remedies = remedies
        self._logged_remedies: set[str] = set()  # in the present outage
        self._failures: dict[str, tuple[float, int]] = {}  # loop time of the last one, and their number

    def went_down(self, reason: str, *, partly: bool = False, lasting: bool = False) -> None:
        """Redis does not answer; ``partly``: for some keys. ``reason`` must not hold credentials.

        An outage that becomes one for all keys is logged once more.
        What comes just after the end of an outage is logged once it is ``lasting``: a server that pauses may answer and
        fall silent several times a second.
        """
        self._on_error()
        self.known.set()
        if not lasting and loop_time() - self._ended_at < _QUIET and reason not in self._remedies:
            return
        news = reason in self._remedies and reason not in self._logged_remedies
        state = "partly down" if partly else "down"
        if news or self._logged not in (state, "down"):
            self._logged = state
            self._logged_remedies.add(reason)
            logger.warning(
                "[REDIS] Warning: Connection failed (%s: %s). Continuing without the cache%s; "
                "it is used again as soon as Redis answers.",
                self._address,
                reason.partition("\n")[0][:160],
                " for the keys of that node" if partly else "",
            )

    def came_up(self, note: str = "") -> None:
        """Redis answers. ``note`` follows the address in the log."""
        if self._logged.endswith("down"):
            self._ended_at = loop_time()
        self._logged_remedies.clear()
        self.known.set()
        if self._logged != "up":
            self._logged = "up"
            logger.info("[REDIS] Connected (%s%s)", self._address, note)

    def reset(self) -> None:
        """The cache no longer connects, so nothing is known."""
        self._logged = ""
        self._failures.clear()
        self.known = asyncio.Event()  # the next start may be in another loop

    def refuses(self, lost: dict[str, str], codes: dict[str, str]) -> bool:
        """Log once what is lost without each command that the server refuses, and why. Whether something changed."""
        before, self._refused = self._refused, lost
        if news := [command for command in lost if before.get(command) != lost[command]]:
            losses = "; ".join(f"{command} is refused ({codes[command]}): {lost[command]}" for command in news)
            logger.warning("[REDIS] Warning: %s.", losses)
        if gone := before.keys() - lost.keys():
            logger.info("[REDIS] No longer refused: %s", ", ".join(sorted(gone)))
        return lost != before

    def failed(self, kind: str, now: float, line: str) -> None:
        """Redis answers, but something fails: log ``line`` for the first failure of its kind."""
        _, times = self._failures.get(kind, (0.0, 0))
        self._failures[kind] = now, times + 1
        if not times:
            logger.warning("[REDIS] Warning: %s", line)

    def check(self, now: float, last_answer: float | None, reason: str, *, partly: bool = False) -> None:
        """Log what no event reports: silence that lasts, and failures that have stopped. Call it a few times a second.

        ``last_answer``: loop time at which Redis last answered, or connecting began; None if it answers now.
        """
        down = self._logged.endswith("down")
        if last_answer is None and down:
            self.came_up()
        elif last_answer is not None and not down and now - last_answer > _TOLERANCE:
            self.went_down(reason, partly=partly, lasting=True)
        for kind, (seen, times) in list(self._failures.items()):
            if now - seen > _QUIET:
                del self._failures[kind]
                logger.info("[REDIS] No more: %s (%d times)", kind, times)
