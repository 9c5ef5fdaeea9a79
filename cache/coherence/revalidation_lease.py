"""The lease under which one process of a fleet revalidates what a server holds, for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from secrets import token_hex
from typing import Final

from ..background import loop_time
from ..exceptions import TransportError
from ..transport.client import Node, send_each
from ..transport.commands import Transport

LEASE_SECONDS: Final = 5.0  # after which a process that was killed while it revalidated is replaced
REVALIDATE_TIMEOUT: Final = 60.0  # seconds that one may take, also by failing again and again


class RevalidationLease:
    """The lease of one server. A process that may not use it revalidates by itself.

    ``name`` returns its key, which changes with the slots of a cluster.
    """

    def __init__(self, node: Node, transport: Transport, name: Callable[[], str]) -> None:
        self._node, self._transport, self._name = node, transport, name
        self._token, self._held = token_hex(8), False

    async def claim(self) -> bool:
        """Take the lease. Returns whether this process is to revalidate."""
        claim = ("SET", self._name(), self._token, "NX", "PX", int(LEASE_SECONDS * 1000))
        holder = (await send_each(self._node, (claim, ("GET", self._name()))))[1]
        self._held = not isinstance(holder, bytes) or holder == self._token.encode()
        return self._held

    async def hold(self, revalidation: Awaitable[bool]) -> bool:
        """The outcome of ``revalidation``, under the lease. Raises TimeoutError if it takes too long."""
        task, give_up = asyncio.ensure_future(revalidation), loop_time() + REVALIDATE_TIMEOUT
        try:
            while not task.done():
                if (left := give_up - loop_time()) <= 0:
                    raise TimeoutError
                await asyncio.wait({task}, timeout=min(LEASE_SECONDS / 3, left))
                await self.renew()
            if task.cancelled():
                raise TimeoutError  # its own doing: as if it had failed
            return task.result()
        finally:
            task.cancel()

    async def renew(self) -> None:
        """Keep it, if this process has it."""
        if self._held:
            with suppress(TransportError):
                await self._node.call("PEXPIRE", self._name(), int(LEASE_SECONDS * 1000))

    async def release(self) -> None:
        """Leave it to another process, if this one has it."""
        if self._held:
            self._held = False
            with suppress(TransportError):  # it expires
                await self._node.call(self._transport.capabilities.delete, self._name())
