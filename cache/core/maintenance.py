"""Periodic maintenance, off the hot path: redeliver pending invalidations, add our counters to the fleet's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from ..coherence.pending import PendingQueue
from ..exceptions import CommandRejected, TransportError
from ..transport.commands import Transport
from .stats import Counters

_FLUSH_EVERY: Final = 1.0  # seconds
_CHECK_EVERY: Final = 0.25  # seconds


class Maintenance:
    """The maintenance task of one cache.

    Args:
        transport: sends the commands.
        pending: invalidations to redeliver.
        counters: counters to flush.
        check: called a few times a second to look at the connection.
        redeliver: delivers the pending invalidations; raises TransportError.
        failed: called with a defect of ours that a round raised.
    """

    def __init__(
        self,
        transport: Transport,
        pending: PendingQueue,
        counters: Counters,
        *,
        check: Callable[[], None],
        redeliver: Callable[[], Awaitable[None]],
        failed: Callable[[Exception], None],
    ) -> None:
        self._transport = transport
        self._pending = pending
        self._counters = counters
        self._check = check
        self._redeliver = redeliver
        self._failed = failed
        self._loop_task: asyncio.Task[None] | None = None
        self._redelivery: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin in the background, unless that is under way."""
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._run(), name="cache-maintenance")

    def stop(self) -> None:
        """Stop the background task."""
        if self._loop_task is not None:
            self._loop_task.cancel()
            self._loop_task = None

    def redeliver_soon(self) -> asyncio.Task[None] | None:
        """Run one round now, in the background. Returns its task if one was begun."""
        if not self._transport.connected or (self._redelivery is not None and not self._redelivery.done()):
            return None
        self._redelivery = asyncio.create_task(self.run_once(), name="cache-redelivery")
        return self._redelivery

    async def run_once(self) -> None:
        """Run one round. What Redis does not acknowledge stays for the next."""
        with suppress(TransportError):
            with suppress(CommandRejected):  # a rejected delete says nothing about the counters
                if self._pending:
                    await self._redeliver()
            await self._counters.flush(self._transport)

    async def _run(self) -> None:
        rounds = 0
        while True:
            await asyncio.sleep(_CHECK_EVERY)
            rounds += 1
            try:
                self._check()
                if self._transport.connected and (self._pending or rounds % round(_FLUSH_EVERY / _CHECK_EVERY) == 0):
                    await self.run_once()
            except Exception as problem:  # a defect of ours must not end maintenance
                self._failed(problem)
