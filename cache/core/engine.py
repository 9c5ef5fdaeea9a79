"""What every operation of one cache shares: transport, counters, near cache, pending invalidations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from .. import keys
from ..background import loop_time
from ..coherence.near_cache import NearCache
from ..coherence.pending import PendingQueue
from ..coherence.server_epoch import Revalidate, ServerEpoch
from ..exceptions import CommandRejected, TransportError
from ..serialization.serializer import Serializer
from ..settings import CacheSettings
from ..transport.client import Command, Node
from ..transport.commands import Transport
from ..transport.connection import REPLICA
from ..transport.handshake import REMEDIES
from ..validation import checked_seconds
from .availability import Availability
from .maintenance import Maintenance
from .stats import Counters

T = TypeVar("T")
_CLUSTER: Final = "; a cluster"
_OVER_THE_POOL: Final = "; no RESP3: over the pool, without the near cache"
_TRACKING: Final = ("CLIENT", "TRACKING", "ON")
# Client-side caching as in the Redis documentation. Not NOLOOP, although we know our own writes: the server would not
# report what our commands evict, expire early or fill, and would stop tracking those keys.


class Engine:
    """The shared parts of one cache, in one event loop. It listens to the transport (``TransportListener``).

    Args:
        settings: where Redis is and how long a command may take.
        near, pending, serializer: of the cache.
        on_change: called with the keys that Redis reports as changed; with None when any key may have changed.
        redeliver: delivers the pending invalidations. Raises TransportError.

    Attributes:
        counters: what this process did.
        transport: sends the commands.
        revalidate: see :meth:`cache.RedisCache.recall_with`.
        epochs: for each server in use, whether it is the one whose values were known to be right.
    """

    def __init__(
        self,
        settings: CacheSettings,
        *,
        near: NearCache,
        pending: PendingQueue,
        serializer: Serializer,
        on_change: Callable[[list[bytes] | None], None],
        redeliver: Callable[[], Awaitable[None]],
    ) -> None:
        self.counters = Counters()
        self.near = near
        self.pending = pending
        self.serializer = serializer
        self._tracked: set[Node] = set()  # which push changes of what was read over the present connection
        self._tracking_replies: dict[Node, Any] = {}
        self.revalidate: Revalidate | None = None
        self.transport = Transport(settings, self, handshake=self._handshake)
        self.epochs: dict[Node, ServerEpoch] = {}
        self._connect_wait = settings.connect_wait
        self._on_change = on_change
        remedies = REMEDIES - {REPLICA} if settings.endpoint.sentinels else REMEDIES  # named for a moment of a failover
        self._availability = Availability(settings.safe_url, self.count_error, remedies)
        self._maintenance = Maintenance(
            self.transport,
            pending,
            self.counters,
            check=self._check,
            redeliver=redeliver,
            failed=self._maintenance_failed,
        )

    # -- start and stop --------------------------------------------------------------------------------

    async def start(self) -> bool:
        """Begin connecting, and wait at most ``connect_wait`` until it is known whether Redis answers."""
        if not self.transport.enabled:
            return False
        self.transport.connect()
        if not self.transport.connected:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._availability.known.wait(), self._connect_wait)
        return self.transport.connected

    def disable(self) -> None:
        """From now on: neutral answers and no traffic."""
        self.transport.disable()
        self._disconnected()

    async def close(self) -> None:
        """Run maintenance once more and close every connection."""
        if self.transport.connected:
            await self._maintenance.run_once()
        self.transport.disconnect()
        checking = list(self.epochs.values())
        self._disconnected()
        await self.transport.disconnected()
        for epoch in checking:
            await epoch.close()

    def tracks(self, key: str) -> bool:
        """Whether changes of ``key`` are pushed, once it was read."""
        client = self.transport.client
        return client is not None and client.node_of(key) in self._tracked

    def delivered(self) -> None:
        """A scan has delivered what was pending."""
        for epoch in self.epochs.values():
            epoch.on_delivered()

    def _disconnected(self) -> None:
        self._maintenance.stop()
        for epoch in self.epochs.values():
            epoch.forget()
        self.epochs.clear()
        self._tracked.clear()
        self.near.drop_all()
        self._on_change(None)
        self._availability.reset()

    def _epoch(self, node: Node) -> ServerEpoch:
        if node not in self.epochs:
            self.epochs[node] = ServerEpoch(node, self.transport, self.pending, lambda: self.revalidate)
        return self.epochs[node]

    def _handshake(self, node: Node) -> tuple[Command, ...]:
        return *self._epoch(node).handshake, _TRACKING

    # -- TransportListener -----------------------------------------------------------------------------

    def on_connecting(self) -> None:
        """The transport has begun to connect, also for a command that was sent before :meth:`start`."""
        self._maintenance.start()

    def on_handshake(self, node: Node, replies: list[Any]) -> None:
        """Compare the server with the one whose values were known to be right."""
        if replies:
            *found, self._tracking_replies[node] = replies
            self._epoch(node).on_handshake(found)

    def on_capabilities(self, lost: dict[str, str]) -> None:
        """Log what the server refuses, and what is lost."""
        if self._availability.refuses(lost, self.transport.capabilities.refused):
            self._maintenance.probe_soon()

    async def on_connected(self, node: Node) -> None:
        """Rely on tracking, and deliver what is pending."""
        if self.transport.complete:
            whole = node is self.transport.client
            self._availability.came_up("" if whole and node.ordered else _OVER_THE_POOL if whole else _CLUSTER)
        tracking = self._tracking_replies.pop(node, None)
        if isinstance(tracking, TransportError):
            self.count_error(tracking)  # no right to it: no near cache, and waiters poll
        elif tracking is not None:
            self._tracked.add(node)
            self._forget_read_over(node)  # changes while tracking was off went unreported
        if node in self.epochs:
            self.epochs[node].check()
        self._maintenance.wake()

    def on_disconnected(self, node: Node, reason: str) -> None:
        """Drop what the lost connection kept coherent."""
        self._tracked.discard(node)
        self._forget_read_over(node)
        if self.transport.client is not None:
            self._availability.went_down(reason, partly=self.transport.connected)

    def on_moved(self, includes: Callable[[str], bool], moves: Collection[tuple[Node, Node]] = ()) -> None:
        """Forget what was read from other servers, and which those were."""
        reached = {new for old, new in moves if old in self.epochs and self.epochs[old].suspect}
        self.near.drop_where(includes)
        self._on_change(None)
        used = set() if self.transport.client is None else {*self.transport.client.nodes()}
        self._tracked &= used
        for gone in self.epochs.keys() - used:
            self.epochs.pop(gone).forget()
        for epoch in self.epochs.values():
            epoch.on_change()  # its mark may have another name
        for node in reached & used:
            self._epoch(node).distrust()

    def on_push(self, node: Node, push: list[Any]) -> None:
        """Apply an invalidation message of client-side caching."""
        if push[0] != b"invalidate":
            return
        names: list[bytes] | None = push[1]
        if (epoch := self.epochs.get(node)) is None:
            return  # it is not used any more
        if names is None:  # FLUSHALL or FLUSHDB
            self._forget_read_over(node)
            epoch.on_flush()
        else:
            if epoch.mark_key.encode() in names:
                self._forget_read_over(node)  # other data may have taken the place of what it tracked (SWAPDB)
                epoch.on_change()
            self.near.drop_many(name.decode(errors="surrogateescape") for name in names)
        self._on_change(names)

    def on_reply_too_large(self, names: list[str]) -> None:
        """Evict values whose replies exceed the size limit: each read would cost every caller the connection."""
        for key in names:
            self.count_undecodable(key, ValueError("too large to be read"))
            self.pending.add(key)

    def _forget_read_over(self, node: Node) -> None:
        client = self.transport.client
        if client is None or client is node:
            self.near.drop_all()
        else:
            self.near.drop_where(lambda key: client.node_of(key) is node)
        self._on_change(None)

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

    def _maintenance_failed(self, problem: Exception) -> None:
        kind = f"maintenance failed ({type(problem).__name__})"
        self.log_once(kind, f"{kind}. Pending invalidations stay pending, and are not served.")

    def log_once(self, kind: str, line: str) -> None:
        """Log the first failure of a kind, and when there are no more."""
        self._availability.failed(kind, loop_time(), line)

    def _check(self) -> None:
        client = self.transport.client
        if client is None:
            return
        last_answer = None if client.complete else client.last_answer
        self._availability.check(loop_time(), last_answer, client.reason, partly=client.up)
        for node, epoch in self.epochs.items():
            if node.up:
                epoch.check()

    def redeliver_soon(self) -> None:
        """Deliver what is pending now, in the background."""
        self._maintenance.wake()
