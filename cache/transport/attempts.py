"""Repeats an attempt to connect until one succeeds, without ever being stuck in one.

A hanging attempt is not waited for: the oldest may take the whole timeout, so that a slow TLS handshake succeeds, and
beside it runs a fresh one that is replaced every 200 ms (or twice the shortest connect time, if that is longer). So
when a network recovers, the first packet is at most 200 ms away, whatever the kernel's retransmission timer says, and
there are never more than two attempts. Racing attempts follow the idea of Happy Eyeballs (RFC 8305).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from ..background import BackgroundTasks
from ..exceptions import CommandTimeout

T = TypeVar("T")
BACKOFF_SHARE: Final = 1 / 32
"""Pause after a failed attempt, as a share of the time since the first one. It prolongs an outage by no more."""
_SHORTEST: Final = (0.01, 0.02, 0.04, 0.08)  # seconds after the first failures; the last one from then on
_LONGEST: Final = 30.0  # seconds
_FRESH_ATTEMPT: Final = 0.2  # seconds until an attempt is begun beside one that hangs


def backoff(pause: float, failing_for: float) -> float:
    """Seconds until the next attempt, at random, so that the processes of a fleet do not attempt in step."""
    return min(max(pause, failing_for * BACKOFF_SHARE), _LONGEST) * random.uniform(0.8, 1.0)


class Attempts(Generic[T]):
    """Repeats one attempt, which may take ``timeout`` seconds.

    Args:
        background: keeps dropped attempts until they have ended.
        on_failed: called with the exception of each attempt that failed; returns seconds for which it asks until the
            next one.
        discard: called with a connection that was made too late.
    """

    def __init__(
        self,
        attempt: Callable[[], Coroutine[Any, Any, T]],
        timeout: float,
        background: BackgroundTasks,
        on_failed: Callable[[BaseException], float],
        discard: Callable[[T], None],
    ) -> None:
        self._attempt, self._timeout, self._background = attempt, timeout, background
        self._on_failed, self._discard = on_failed, discard
        self._quickest = 0.0  # the minimum: the last may have waited for an outage to end
        self._failures, self._failing_since = 0, 0.0

    async def first(self, *, afresh: bool = True) -> T:
        """Attempt until one succeeds: at once and with short pauses again if ``afresh``, as after a good connection."""
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        if afresh:
            self._failures, self._failing_since = 0, next_at
        else:
            next_at += self._pause()
        running: dict[asyncio.Task[T], float] = {}  # loop time each began, oldest first
        try:
            while True:
                now = loop.time()
                for attempt in [attempt for attempt, began in running.items() if now - began >= self._timeout]:
                    del running[attempt]
                    self._drop(attempt)
                    self._on_failed(CommandTimeout("no answer"))
                if now >= next_at:
                    if len(running) == 2:
                        self._drop(running.popitem()[0])
                    running[loop.create_task(self._attempt())] = now
                    next_at = now + min(max(_FRESH_ATTEMPT, 2 * self._quickest), self._timeout)
                if not running:
                    await asyncio.sleep(next_at - now)
                    continue
                done, _ = await asyncio.wait(running, timeout=next_at - now, return_when=asyncio.FIRST_COMPLETED)
                for attempt in done:
                    error, now = attempt.exception(), loop.time()
                    if error is None:
                        took = now - running.pop(attempt)
                        self._quickest = min(self._quickest or took, took)
                        return attempt.result()
                    del running[attempt]
                    next_at = now + backoff(max(self._on_failed(error), self._pause()), now - self._failing_since)
        finally:
            for attempt in running:
                self._drop(attempt)

    def _pause(self) -> float:
        self._failures += 1
        return _SHORTEST[min(self._failures, len(_SHORTEST)) - 1]

    def _drop(self, attempt: asyncio.Task[T]) -> None:
        """Cancel an attempt, also one that has just succeeded."""
        self._background.abandon(attempt)
        attempt.add_done_callback(self._dropped)

    def _dropped(self, attempt: asyncio.Task[T]) -> None:
        if not attempt.cancelled() and attempt.exception() is None:
            self._discard(attempt.result())
