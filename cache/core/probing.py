"""Looks again at what the server refuses, so that rights which come back are noticed without a new connection."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from ..exceptions import TransportError
from ..transport.commands import Transport

PROBE_EVERY: Final = 30.0
"""Seconds between two looks; fewer while the refusal is recent."""


class Probing:
    """The looks of one cache.

    Args:
        transport: sends the probes.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._refused_since = self._next_at = 0.0

    def changed(self, now: float) -> None:
        """Something else is refused than before.

        Args:
            now: loop time.
        """
        self._refused_since = self._next_at = now

    def check(self, now: float) -> asyncio.Task[None] | None:
        """Look if it is time. Returns the task if one was begun.

        Args:
            now: loop time.
        """
        if not self._transport.capabilities.refused or now < self._next_at:
            return None
        # Rights that come back are noticed within an eighth of the time for which they were missing.
        self._next_at = now + min((now - self._refused_since) / 8, PROBE_EVERY)
        return asyncio.create_task(self._probe(), name="cache-probe")

    async def _probe(self) -> None:
        with suppress(TransportError):
            await self._transport.probe()
