"""What every operation stands on: the way to Redis, the counters, the near cache, and the invalidations still owed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from .. import keys
from ..coherence.near_cache import NearCache
from ..coherence.pending import PendingInvalidations, PendingQueue
from ..coherence.server_epoch import QUESTIONS, ServerEpoch
from ..exceptions import CommandRejected, TransportError
from ..settings import CacheSettings
from ..transport.commands import LOADS, Transport
from ..transport.multiplexer import MultiplexedClient
from ..transport.pool import PooledClient
from ..transport.redis_py import endpoint
from ..transport.unread import OversizedReplies
from .availability import Availability
from .maintenance import Maintenance
from .stats import Counters

if TYPE_CHECKING:
    from ..serialization.encryption import ValueCipher

_LARGEST: Final = 16 << 20  # bytes of a reply; nothing that is asked for over the lane should come near it
_MARK: Final = keys.system_server().encode()
_TRACKING: Final = ("CLIENT", "TRACKING", "ON")
# Not NOLOOP, although we know what we write: what a command of ours evicts or lets expire, what our own EXPIRE
# shortens and what our own load fills would not be told to us either, and the server would stop tracking it.


class Engine(Transport):
    """The parts of one cache, in one event loop.

    Attributes:
        counters: what this process did.
        pending: invalidations that Redis does not know of yet.
        near: values kept in this process.
        sealer: encrypts what Redis keeps; None where values are kept as they are.
        tracking: whether the server pushes changes of what was read over the lane.
        max_value_bytes: larger values are not kept.
        settle: delivers what is owed; set by whoever knows how.
        recall: whether the server is the one we knew.
        unread: what connections were lost over.
        clear: removes every value of every user; set likewise.
        on_owed: told what Redis could not be told, so that others who serve from the same Redis obey it too.
        on_change: called with the keys the server says have changed; with None when any may have.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self.counters = Counters()
        self.pending = PendingQueue()
        self.near = NearCache(settings.near)
        self.sealer = _sealer(settings)
        self.lane: MultiplexedClient | None = None
        self.tracking = False
        self.on_change: Callable[[list[bytes] | None], None] = _ignore
        self.on_owed: Callable[[PendingInvalidations], None] = _alone
        self.settle: Callable[[], Awaitable[None]] = _nothing
        self.clear: Callable[[], Awaitable[None]] = _nothing
        self.unread = OversizedReplies(max(_LARGEST, 2 * settings.max_value_bytes), self._too_large)
        self.recall = ServerEpoch(self, self.pending, lambda: self.clear())
        self.enabled = settings.enabled
        self.closed = False
        self.max_value_bytes = settings.max_value_bytes
        self.deadline = settings.deadline
        self._settings = settings
        self._outage = Availability(settings.safe_url, self.count_error)
        self._link = PooledClient(settings, on_up=self._link_up, on_failed=self._link_failed)
        self._looking_since = 0.0
        self._housekeeper = Maintenance(self)
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether the cache is switched on and Redis is believed to answer."""
        return self.lane is not None and (self.lane.up or (self.lane.unsupported and self._link.up))

    # -- life ------------------------------------------------------------------------------------------

    async def start(self) -> bool:
        """Begin connecting, and wait until it is known whether Redis is there, but only briefly."""
        if not self.enabled:
            return False
        self.wake()
        if not self.connected:
            waiter = asyncio.ensure_future(self._outage.known.wait())
            try:
                await asyncio.wait({waiter}, timeout=self._settings.connect_wait)
            finally:
                waiter.cancel()
        return self.connected

    def wake(self) -> None:
        """Begin connecting, unless that is under way."""
        self.closed = False
        if self.lane is None:
            self.lane = MultiplexedClient(
                endpoint(self._settings),
                deadline=self._settings.deadline,
                connect_timeout=self._settings.socket_connect_timeout,
                on_up=self._lane_up,
                on_down=self._lane_down,
                on_push=self._pushed,
                largest_reply=self.unread.largest,
                on_unread=self.unread.lost,
                setup=QUESTIONS,
                on_setup=self.recall.met,
            )
            self._looking_since = asyncio.get_running_loop().time()
            self.lane.start()
        self._housekeeper.start()

    def disable(self) -> None:
        """From this moment neutral answers and no traffic."""
        self.enabled = False
        self._rest()

    def enable(self) -> None:
        """Switch on again. Connecting begins at once, in the background."""
        self.enabled = True
        self.wake()

    async def close(self) -> None:
        """Do the last housekeeping and close every connection."""
        if self.connected:
            await self._housekeeper.keep()
        self._rest()
        if self._leaving:
            await asyncio.wait(set(self._leaving), timeout=2.0)
        await self.recall.close()
        await self._link.closed()

    def _rest(self) -> None:
        lane, self.lane = self.lane, None
        if lane is not None:
            self._wait_for(asyncio.create_task(lane.close(), name="cache-lane-close"))
        self._housekeeper.stop()
        self._link.stop()
        self._forget()
        self._outage.unknown()

    # -- what Redis tells ------------------------------------------------------------------------------

    async def _lane_up(self) -> None:
        self._outage.ended()
        lane = self.lane
        if lane is None:
            return
        # The scripts too, so that nobody has to send them on the way to an answer.
        tracking, *_ = lane.call_many([_TRACKING, *LOADS])
        try:
            await tracking
        except TransportError as problem:  # not permitted: no near cache, and waiters look again instead of being told
            self.count_error(problem)
        else:
            self.tracking = True
            self.near.arm()
            self.on_change(None)  # what changed while nobody was told is looked at now
        self.recall.keep(_now())
        await self.unread.look(lane)
        await self._housekeeper.keep()

    def _lane_down(self, reason: str) -> None:
        self._forget()
        if self.lane is not None and self.lane.unsupported:
            self._link.start()
        elif self.lane is not None:
            self._outage.began(reason)

    def _pushed(self, push: list[Any]) -> None:
        if push[0] != b"invalidate":
            return
        names: list[bytes] | None = push[1]
        if names is None:  # FLUSHALL
            self.near.drop_all()
            self.recall.all_changed(_now())
        else:
            if _MARK in names:
                self.recall.changed(_now())
            self.near.drop_many(name.decode(errors="surrogateescape") for name in names)
        self.on_change(names)

    def _link_up(self) -> None:
        if self.lane is not None and self.lane.unsupported:
            self._outage.ended()

    def _link_failed(self, reason: str) -> None:
        if self.lane is not None and self.lane.unsupported:
            self._outage.began(reason)
        else:
            self.count_error()

    def _forget(self) -> None:
        self.tracking = False
        self.near.disarm()
        self.on_change(None)

    # -- what went wrong -------------------------------------------------------------------------------

    def count_error(self, problem: Exception | None = None) -> None:
        """Count one thing that Redis failed to do, and tell the operator if that was to refuse.

        Switched off, nothing is asked of it, and so nothing fails.
        """
        if not self.enabled:
            return
        self.counters.connection_errors += 1
        if isinstance(problem, CommandRejected):
            what = f"commands are refused ({problem.code})"
            self._outage.trouble(what, _now(), f"{what}. What they were for goes on without the cache.")

    def count_undecodable(self, key: str, problem: Exception) -> None:
        """Count a value that cannot be decoded, or should not be there, and is removed."""
        self.counters.undecodable += 1
        line = f"a value that cannot be decoded was removed ({keys.shape(key)}: {problem})"
        self._outage.trouble("values that cannot be decoded", _now(), line)

    def _too_large(self, key: str) -> None:
        self.count_undecodable(key, ValueError("too large to be read"))
        self.pending.add(key)

    def look(self) -> None:
        """See how Redis does."""
        if (lane := self.lane) is not None and not lane.unsupported:
            answered = None if lane.up else max(lane.proven_at, self._looking_since)
            self._outage.look(_now(), answered, lane.reason)
        if lane is not None and lane.up:
            self.recall.keep(_now())

    def owe(self, debts: PendingInvalidations) -> None:
        """Redis could not be told: remember it."""
        self.pending.take_over(debts)
        self.on_owed(debts)

    def settle_soon(self) -> None:
        """Deliver what is owed now, beside whatever the caller does next."""
        if (settling := self._housekeeper.settle_soon()) is not None:
            self._wait_for(settling)

    def _wait_for(self, task: asyncio.Task[None]) -> None:
        """Closing waits for it."""
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


def _sealer(settings: CacheSettings) -> ValueCipher | None:
    if not settings.encryption_keys:
        return None
    from ..serialization.encryption import ValueCipher  # the cryptography package, which nobody else needs

    return ValueCipher(settings.encryption_keys)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _nothing() -> None:
    """Nobody invalidates."""


def _alone(_: PendingInvalidations) -> None:
    """Nobody else serves from this Redis."""


def _ignore(_: list[bytes] | None) -> None:
    """Nobody waits for changes."""
