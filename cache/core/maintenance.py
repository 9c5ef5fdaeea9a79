"""What is done now and then, off the hot path: what is owed is delivered, and the counters are added to the fleet's."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ..exceptions import CommandRejected, TransportError

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("cache")
_EVERY: Final = 1.0  # seconds between two rounds
_LOOK: Final = 0.25  # seconds between two looks at how Redis does


class Maintenance:
    """Keeps the house of one engine.

    Args:
        engine: whose.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rounds: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Go round in the background, unless that is under way."""
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._go_round(), name="cache-housekeeping")

    def stop(self) -> None:
        """Go round no more."""
        if self._rounds is not None:
            self._rounds.cancel()
            self._rounds = None

    def settle_soon(self) -> asyncio.Task[None] | None:
        """Deliver what is owed now, in the background. The task, if one was begun."""
        if not self._engine.connected or (self._settling is not None and not self._settling.done()):
            return None
        self._settling = asyncio.create_task(self.keep(), name="cache-settle")
        return self._settling

    async def keep(self) -> None:
        """One round. What Redis does not take stays for the next."""
        with suppress(TransportError):  # it stays where it is
            with suppress(CommandRejected):  # who refuses the one may take the other
                if self._engine.pending:
                    await self._engine.settle()
            await self._engine.counters.flush(self._engine)

    async def _go_round(self) -> None:
        rounds = 0
        while True:
            await asyncio.sleep(_LOOK)
            rounds += 1
            self._engine.look()
            if self._engine.connected and (self._engine.pending or rounds % round(_EVERY / _LOOK) == 0):
                try:
                    await self.keep()
                except Exception as problem:  # a mistake of ours: it is told, and the next round is made all the same
                    logger.error("housekeeping failed (%s)", type(problem).__name__)
