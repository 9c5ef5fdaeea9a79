"""What every operation of one cache shares: transport, counters, near cache, pending invalidations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Final, TypeVar

from .. import keys
from ..background import loop_time, set_within
from ..coherence.near_cache import NearCache
from ..coherence.pending import PendingQueue
from ..coherence.pending_entries import PendingEntries
from ..coherence.servers import Servers
from ..coherence.waiters import Waiters
from ..exceptions import CommandRejected, TransportError
from ..serialization.serializer import Serializer
from ..settings import CacheSettings
from ..transport.client import Node
from ..transport.commands import Transport
from ..transport.handshake import REMEDIES
from ..transport.roles import REPLICA
from ..validation import checked_seconds
from .availability import Availability
from .maintenance import Maintenance
from .stats import Counters

T = TypeVar("T")
_CLUSTER: Final = "; a cluster"
_NO_TRACKING: Final = "there is no near cache, and waiting processes look every 50 ms"
_OVER_THE_POOL: Final = "; no RESP3: over the pool, without the near cache"


class Engine:
    """The shared parts of one cache, in one event loop. It listens to the transport (``TransportListener``).

    Args:
        settings: of the cache.
        pending: what is pending for the same Redis; see :class:`PendingQueue`.
        redeliver: delivers the pending invalidations. Raises TransportError.

    Attributes:
        counters: what this process did.
        near: values kept in this process.
        waiters: callers that wait for a change of a key.
        pending: what must not be served.
        serializer: values to bytes and back.
        transport: sends the commands.
        servers: what is known of each server in use.
    """

    def __init__(
        self, settings: CacheSettings, pending: PendingEntries | None, *, redeliver: Callable[[], Awaitable[None]]
    ) -> None:
        self.counters = Counters()
        self.near = NearCache(settings.near)
        self.waiters = Waiters()
        self.pending = PendingQueue(pending)
        self.serializer = Serializer(settings.max_value_bytes, settings.encryption_keys)
        self.transport = Transport(settings, self, handshake=lambda node: self.servers.handshake(node))
        self.servers = Servers(self.transport, self.pending, self.near, self.waiters)
        self._refusal = ""  # why a server reports no changes
        self._connect_wait = settings.connect_wait
        # Sentinels name a replica for a moment of each failover: the URL is right all the same.
        remedies = REMEDIES - {REPLICA} if settings.endpoint.sentinels else REMEDIES
        self._availability = Availability(settings.safe_url, self.count_error, remedies)
        self._maintenance = Maintenance(
            self.transport, self.servers, self.pending, self.counters, self._availability, redeliver
        )

    # -- start and stop --------------------------------------------------------------------------------

    async def start(self) -> bool:
        """Begin connecting, and wait at most ``connect_wait`` until it is known whether Redis answers."""
        if not self.transport.enabled:
            return False
        self.transport.connect()
        if not self.transport.connected:
            await set_within(self._availability.known, self._connect_wait)
        return self.transport.connected

    def disable(self) -> None:
        """From now on: neutral answers and no traffic."""
        self.transport.disable()
        self._maintenance.stop()
        self._availability.reset()
        self.servers.forget()

    async def close(self) -> None:
        """Run maintenance once more and close every connection."""
        if self.transport.connected:
            await self._maintenance.run_once()
        self.transport.disconnect()
        self._maintenance.stop()
        self._availability.reset()
        await self.servers.close()
        await self.transport.disconnected()

    # -- TransportListener -----------------------------------------------------------------------------

    def on_connecting(self) -> None:
        """The transport has begun to connect, also for a command that was sent before :meth:`start`."""
        self._maintenance.start()

    def on_handshake(self, node: Node, replies: list[Any]) -> None:
        """Learn whether its values are right, and whether it reports changes of them."""
        if replies:
            self.servers.on_handshake(node, replies)
            if isinstance(refusal := replies[-1], CommandRejected):
                self.counters.connection_errors += 1
                self._refusal = refusal.code

    def on_capabilities(self, lost: dict[str, str]) -> None:
        """Log what the server refuses, and what is lost."""
        codes = self.transport.capabilities.refused
        if self.servers.silent:
            lost, codes = lost | {"CLIENT TRACKING": _NO_TRACKING}, codes | {"CLIENT TRACKING": self._refusal}
        if self._availability.refuses(lost, codes):
            self._maintenance.probe_soon()

    def on_connected(self, node: Node) -> None:
        """Check its values, and deliver what is pending."""
        if self.transport.complete:
            whole = node is self.transport.client
            self._availability.came_up("" if whole and node.resp3 else _OVER_THE_POOL if whole else _CLUSTER)
        self.servers.on_connected(node)
        self._maintenance.wake()

    def on_disconnected(self, node: Node, reason: str) -> None:
        """Drop what the lost connection kept coherent."""
        self.servers.forget_read_over(node)
        if reason and (client := self.transport.client) is not None:
            self._availability.went_down(reason, partly=client is not node and client.up)

    def on_moved(self, includes: Callable[[str], bool], moves: Collection[tuple[Node, Node]] = ()) -> None:
        """Forget what was read from the servers before, and those of them that are not used any more."""
        self.servers.on_moved(includes, moves)

    def on_push(self, node: Node, push: list[Any]) -> None:
        """Apply an invalidation message of client-side caching."""
        self.servers.on_push(node, push)

    def on_reply_too_large(self, key: str) -> None:
        """Delete what is there, guards included: each read of it would cost every caller the connection."""
        self.count_undecodable(key, ValueError("too large to be read"))
        self.pending.add(key)

    # -- failures --------------------------------------------------------------------------------------

    async def answer(self, neutral: T, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """The outcome of ``work``; ``neutral``, counted as an error, if Redis is away, late or rejects it.

        ``timeout``: seconds until ``neutral`` is the answer, if that is sooner than the deadline. It is checked here.
        Work that is cancelled leaves a pending invalidation of what it may have stored.
        """
        try:
            async with asyncio.timeout(None if timeout is None else checked_seconds(timeout, "the timeout")):
                return await work
        except (TransportError, TimeoutError) as problem:
            self.count_error(problem)
        finally:
            work.close()  # if the time-out was none
        return neutral

    def count_error(self, problem: Exception | None = None) -> None:
        """Count a failure of Redis, and log it if Redis rejected a command.

        A cache that is switched off sends nothing, so nothing fails.
        """
        if not self.transport.enabled:
            return
        self.counters.connection_errors += 1
        if isinstance(problem, CommandRejected) and problem.code not in self.transport.capabilities.refused.values():
            what = f"commands are refused ({problem.code})"
            self.log_once(what, f"{what}. What they were for goes on without the cache.")

    def count_undecodable(self, key: str, problem: Exception) -> None:
        """Count and log a value that cannot be decoded, or must not be there, and is removed."""
        self.counters.undecodable += 1
        line = f"a value that cannot be decoded was removed ({keys.shape(key)}: {problem})"
        self.log_once("values that cannot be decoded", line)

    def log_once(self, kind: str, line: str) -> None:
        """Log the first failure of a kind, and when there are no more."""
        self._availability.failed(kind, loop_time(), line)

    def redeliver_soon(self) -> None:
        """Deliver what is pending now, in the background."""
        self._maintenance.wake()
