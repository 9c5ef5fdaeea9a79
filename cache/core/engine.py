"""What every operation of one cache shares: transport, counters, near cache, pending invalidations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from .. import keys
from ..background import BackgroundTasks, loop_time
from ..coherence.near_cache import NearCache
from ..coherence.pending import PendingQueue
from ..coherence.server_epoch import HANDSHAKE, ServerEpoch
from ..exceptions import CommandRejected, TransportError
from ..serialization.serializer import Serializer
from ..settings import CacheSettings
from ..transport.commands import Transport
from ..transport.connection import REPLICA
from ..transport.handshake import REMEDIES
from ..validation import checked_seconds
from .availability import Availability
from .maintenance import Maintenance
from .stats import Counters

LARGEST_REPLY_BYTES: Final = 16 << 20  # bytes; no value of ours comes near it
T = TypeVar("T")
_EPOCH_KEY: Final = keys.system_server().encode()
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
        epoch: whether the server is the one whose values were known to be right.
        tracking: whether the server pushes changes of what was read over the multiplexed connection.
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
        self.tracking = False
        self._tracking_reply: Any = None
        largest = max(LARGEST_REPLY_BYTES, 2 * settings.max_value_bytes)
        self.transport = Transport(settings, self, handshake=(*HANDSHAKE, _TRACKING), largest_reply_bytes=largest)
        self.epoch = ServerEpoch(self.transport, pending)
        self._connect_wait = settings.connect_wait
        self._on_change = on_change
        # Sentinels may name a replica for the moment that a failover takes: nothing has to be changed.
        remedies = REMEDIES - {REPLICA} if settings.endpoint.sentinels else REMEDIES
        self._availability = Availability(settings.safe_url, self.count_error, remedies)
        self._maintenance = Maintenance(
            self.transport,
            pending,
            self.counters,
            check=self._check,
            redeliver=redeliver,
            failed=self._maintenance_failed,
        )
        self._background = BackgroundTasks()  # redelivering and disconnecting

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
        self._disconnected(self.transport.disable())

    def enable(self) -> None:
        """Switch on again. Connecting begins at once, in the background."""
        self.transport.enable()

    async def close(self) -> None:
        """Run maintenance once more and close every connection."""
        if self.transport.connected:
            await self._maintenance.run_once()
        self._disconnected(self.transport.disconnect())
        await self._background.ended(2.0)
        await self.epoch.close()
        await self.transport.pool.closed()

    def _disconnected(self, closing: asyncio.Task[None] | None) -> None:
        if closing is not None:
            self._background.keep(closing)
        self._maintenance.stop()
        self._drop_tracking()
        self._availability.reset()

    # -- TransportListener -----------------------------------------------------------------------------

    def on_connecting(self) -> None:
        """The transport has begun to connect, also for a command that was sent before :meth:`start`."""
        self._maintenance.start()

    def on_handshake(self, replies: list[Any]) -> None:
        """Compare the server with the one whose values were known to be right."""
        *found, self._tracking_reply = replies
        self.epoch.on_handshake(found)

    def on_capabilities(self, lost: dict[str, str]) -> None:
        """Log what the server refuses, and what is lost."""
        if self._availability.refuses(lost, self.transport.capabilities.refused):
            self._maintenance.probe_soon()

    async def on_connected(self) -> None:
        """Rely on tracking, and deliver what is pending."""
        if self.transport.client is None:
            return
        self._availability.came_up()
        if isinstance(self._tracking_reply, TransportError):
            self.count_error(self._tracking_reply)  # no right to it: no near cache, and waiters poll
        else:
            self.tracking = True
            self.near.arm()
            self._on_change(None)  # changes while tracking was off went unreported
        self.epoch.check()
        await self._maintenance.run_once()

    def on_disconnected(self, reason: str) -> None:
        """Drop what the lost connection kept coherent, and fall back to the pool if the server needs that."""
        self._drop_tracking()
        if self.transport.pooled:
            self.transport.pool.start()
        elif self.transport.client is not None:
            self._availability.went_down(reason)

    def on_push(self, push: list[Any]) -> None:
        """Apply an invalidation message of client-side caching."""
        if push[0] != b"invalidate":
            return
        names: list[bytes] | None = push[1]
        if names is None:  # FLUSHALL or FLUSHDB
            self.near.drop_all()
            self.epoch.on_flush()
        else:
            if _EPOCH_KEY in names:
                self.near.drop_all()  # other data may have taken the place of what the server tracked (SWAPDB)
                self.epoch.on_change()
            self.near.drop_many(name.decode(errors="surrogateescape") for name in names)
        self._on_change(names)

    def on_reply_too_large(self, names: list[str]) -> None:
        """Evict values whose replies exceed the size limit: each read would cost every caller the connection."""
        for key in names:
            self.count_undecodable(key, ValueError("too large to be read"))
            self.pending.add(key)

    def on_pool_connected(self) -> None:
        """Redis answers over the pool."""
        if self.transport.pooled and self.transport.client is not None:
            self._availability.came_up(f"; {self.transport.client.reason}: over the pool, without the near cache")

    def on_pool_failed(self, reason: str) -> None:
        """The pool could not connect."""
        if self.transport.pooled:
            self._availability.went_down(reason)
        else:
            self.count_error()

    def _drop_tracking(self) -> None:
        self.tracking = False
        self.near.disarm()
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
        if not client.unsupported:
            last_answer = None if client.up else max(client.proven_at, client.started_at)
            self._availability.check(loop_time(), last_answer, client.reason)
        if client.up:
            self.epoch.check()

    def redeliver_soon(self) -> None:
        """Deliver what is pending now, in the background, unless something else there has to end first."""
        if self.transport.connected and not self._background:
            self._background.spawn(self._maintenance.run_once(), name="cache-redelivery")
