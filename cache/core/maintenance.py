"""Periodic maintenance, off the hot path: redeliver pending invalidations, add our counters to the fleet's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from ..background import loop_time, set_within
from ..coherence.pending import PendingQueue
from ..coherence.servers import Servers
from ..exceptions import CommandRejected, TransportError
from ..transport.commands import Transport
from .availability import Availability
from .stats import Counters

_FLUSH_EVERY: Final = 1.0  # seconds
_CHECK_EVERY: Final = 0.25  # seconds
_PROBE_EVERY: Final = 30.0  # seconds between two looks at what the server refuses; fewer while that is recent


class Maintenance:
    """The maintenance task of one cache.

    Args:
        transport, servers, pending, counters, availability: of the cache.
        redeliver: delivers the pending invalidations; raises TransportError.
    """

    def __init__(
        self,
        transport: Transport,
        servers: Servers,
        pending: PendingQueue,
        counters: Counters,
        availability: Availability,
        redeliver: Callable[[], Awaitable[None]],
    ) -> None:
        self._transport, self._servers = transport, servers
        self._pending, self._redeliver = pending, redeliver
        self._counters, self._availability = counters, availability
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._flush_at = self._refused_since = self._probe_at = 0.0

    def start(self) -> None:
        """Begin in the background, unless that is under way."""
        if self._task is None:
            self._flush_at = loop_time() + _FLUSH_EVERY
            self._woken = asyncio.Event()  # the one before may belong to another loop
            self._task = asyncio.create_task(self._run(), name="cache-maintenance")

    def stop(self) -> None:
        """Stop the background task."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def wake(self) -> None:
        """Something is pending that could be delivered now."""
        self._woken.set()

    def probe_soon(self) -> None:
        """What the server refuses has changed: look again soon, and then less and less often."""
        self._refused_since = self._probe_at = loop_time()

    async def run_once(self) -> None:
        """Run one round. What Redis does not acknowledge stays for the next."""
        with suppress(TransportError):
            with suppress(CommandRejected):  # a rejected delete says nothing about the counters
                if self._pending:
                    await self._redeliver()
            await self._counters.flush(self._transport)

    async def _run(self) -> None:
        while True:
            await set_within(self._woken, _CHECK_EVERY)
            self._woken.clear()
            try:
                self._check()
                if self._transport.connected:
                    await self._probe()
                    if self._pending or loop_time() >= self._flush_at:
                        self._flush_at = loop_time() + _FLUSH_EVERY
                        await self.run_once()
            except Exception as problem:  # a defect of ours must not end maintenance
                what = f"maintenance failed ({type(problem).__name__})"
                line = f"{what}. Pending invalidations stay pending, and are not served."
                self._availability.failed(what, loop_time(), line)

    def _check(self) -> None:
        client = self._transport.client
        if client is not None:
            last_answer = None if client.complete else client.last_answer
            self._availability.check(loop_time(), last_answer, client.reason, partly=client.up)
            self._servers.check()

    async def _probe(self) -> None:
        """Look again at what the server refuses: rights that come back are noticed without a new connection."""
        now = loop_time()
        if self._transport.capabilities.refused and now >= self._probe_at:
            # Noticed within an eighth of the time for which they were missing: due by the round after this moment.
            self._probe_at = now + min((now - self._refused_since) / 8, _PROBE_EVERY) - _CHECK_EVERY
            with suppress(TransportError):
                await self._transport.probe()
