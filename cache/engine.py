"""What every operation stands on: the link to Redis, the counters, and the invalidations still owed.

It also keeps house: once a second, off the hot path, owed invalidations are delivered and the counters are
added to the fleet's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

from redis.asyncio import Redis

from .invalidation import Pending
from .link import Link, LinkDown, Refused
from .settings import CacheSettings
from .stats import Counters

_HOUSEKEEPING: Final = 1.0  # seconds between two rounds
T = TypeVar("T")


async def _command(client: Any, command: tuple[Any, ...]) -> Any:
    return await client.execute_command(*command)


class Engine:
    """The parts of one cache, in one event loop.

    Attributes:
        counters: what this process did.
        pending: invalidations that Redis does not know of yet.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self.counters = Counters()
        self.pending = Pending()
        self._settings = settings
        self._enabled = settings.enabled
        self._link = Link(settings, before_up=self._settle_debts, on_error=self.count_error)
        self._housekeeper: asyncio.Task[None] | None = None

    @property
    def enabled(self) -> bool:
        """Whether the cache is switched on."""
        return self._enabled

    @property
    def connected(self) -> bool:
        """Whether it is switched on and Redis is believed to answer."""
        return self._enabled and self._link.up

    async def start(self) -> bool:
        """Begin connecting and wait for it briefly; whether Redis has answered."""
        if not self._enabled:
            return False
        self._wake()
        return await self._link.wait_up(self._settings.connect_wait)

    async def close(self) -> None:
        """Do the last housekeeping and close every connection."""
        self._rest()
        if self._link.up:
            await self._keep_house()
        self._link.stop()
        await self._link.closed()

    def enable(self) -> None:
        """Switch on. Connecting begins at once, in the background."""
        self._enabled = True
        self._wake()

    def disable(self) -> None:
        """Switch off: from this moment neutral answers and no traffic."""
        self._enabled = False
        self._rest()
        self._link.stop()

    async def ask(self, neutral: Any, *command: Any) -> Any:
        """Redis's reply to one command; ``neutral`` when switched off, away, late or refused."""
        if not self._enabled:
            return neutral
        if self._housekeeper is None:  # nobody called start(): the cache comes up by itself
            self._wake()
        try:
            return await self._link.call(partial(_command, command=command))
        except (LinkDown, Refused):
            self.count_error()
            return neutral

    async def call(self, operation: Callable[[Redis], Awaitable[T]]) -> T:
        """Run an operation of several commands. Raises LinkDown or Refused, see :meth:`Link.call`."""
        if not self._enabled:
            raise LinkDown("the cache is disabled")
        return await self._link.call(operation)

    def count_error(self) -> None:
        """Count one thing that Redis failed to do."""
        self.counters.connection_errors += 1

    def _wake(self) -> None:
        self._link.start()
        if self._housekeeper is None or self._housekeeper.done():
            self._housekeeper = asyncio.create_task(self._housekeeping(), name="cache-housekeeping")

    def _rest(self) -> None:
        if self._housekeeper is not None:
            self._housekeeper.cancel()
            self._housekeeper = None

    async def _settle_debts(self, client: Redis) -> None:
        async def straight(operation: Callable[[Redis], Awaitable[Any]]) -> Any:
            return await operation(client)

        await self.pending.deliver(straight)

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING)
            if self._link.up:
                await self._keep_house()

    async def _keep_house(self) -> None:
        try:
            await self.pending.deliver(self._link.call)
            await self.counters.flush(self._link.call)
        except (LinkDown, Refused):
            pass  # it stays where it is, for the next round
