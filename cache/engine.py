"""How a command reaches Redis: over the hot lane, or over the pool where a lane cannot be had.

Single commands, small groups and scripts travel over the lane, one connection that all callers of this process
share. The pool carries what is long or holds a connection of its own (scans, INFO, locks), and everything where
the server speaks no RESP3 or is a cluster. Once a second, off the hot path, the engine keeps house: invalidations
that are owed are delivered and the counters are added to the fleet's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import hiredis
from redis.asyncio import Redis

from . import keys
from .connection import endpoint
from .lane import Lane
from .link import Link, LinkDown, Refused
from .near import NearCache
from .outage import Outage
from .pending import Pending
from .scripts import ALL, Script
from .settings import CacheSettings
from .stats import Counters
from .wire import LaneDown, LaneTimeout, ReplyError

if TYPE_CHECKING:
    from .seal import Sealer

FAILURES: Final = (LaneDown, ReplyError, LinkDown, Refused)
"""What sending a command may raise: Redis is away, late, or said no."""
_HOUSEKEEPING: Final = 1.0  # seconds between two rounds
_LOOK: Final = 0.25  # seconds between two looks at how Redis does
_LARGEST: Final = 16 << 20  # bytes of a reply; nothing that is asked for over the lane should come near it
_LOADS: Final = tuple(("SCRIPT", "LOAD", script.text) for script in ALL)
_TRACKING: Final = ("CLIENT", "TRACKING", "ON")
# Not NOLOOP, although we know what we write: what a command of ours evicts or lets expire, what our own EXPIRE
# shortens and what our own load fills would not be told to us either, and the server would stop tracking it.
T = TypeVar("T")


class Engine:
    """The parts of one cache, in one event loop.

    Attributes:
        counters: what this process did.
        pending: invalidations that Redis does not know of yet.
        near: values kept in this process.
        sealer: encrypts what Redis keeps; None where values are kept as they are.
        lane: the connection that is shared; None while switched off or not yet started.
        tracking: whether the server pushes changes of what was read over the lane.
        max_value_bytes: larger values are not kept.
        deadline: seconds within which a call is to be answered.
        settle: delivers what is owed; set by whoever knows how.
        on_change: called with the keys the server says have changed; with None when any may have.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self.counters = Counters()
        self.pending = Pending()
        self.near = NearCache(settings.near)
        self.sealer = _sealer(settings)
        self.lane: Lane | None = None
        self.tracking = False
        self.on_change: Callable[[list[bytes] | None], None] = _ignore
        self.settle: Callable[[], Awaitable[None]] = _nothing_owed
        self.enabled = settings.enabled
        self.max_value_bytes = settings.max_value_bytes
        self.deadline = settings.deadline
        self._settings = settings
        self._outage = Outage(settings.safe_url, self.count_error)
        self._link = Link(settings, on_up=self._link_up, on_failed=self._link_failed)
        self._looking_since = 0.0
        self._housekeeper: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._settling: asyncio.Task[None] | None = None

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
        if self.lane is None:
            self.lane = Lane(
                endpoint(self._settings),
                deadline=self._settings.deadline,
                connect_timeout=self._settings.socket_connect_timeout,
                on_up=self._lane_up,
                on_down=self._lane_down,
                on_push=self._pushed,
                largest_reply=max(_LARGEST, 2 * self.max_value_bytes),
                on_larger=self._too_large,
            )
            self._looking_since = asyncio.get_running_loop().time()
            self.lane.start()
        if self._housekeeper is None or self._housekeeper.done():
            self._housekeeper = asyncio.create_task(self._housekeeping(), name="cache-housekeeping")

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
            await self._keep_house()
        self._rest()
        if self._leaving:
            await asyncio.wait(set(self._leaving), timeout=2.0)
        await self._link.closed()

    def _rest(self) -> None:
        lane, self.lane = self.lane, None
        if lane is not None:
            leaving = asyncio.create_task(lane.close(), name="cache-lane-close")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        if self._housekeeper is not None:
            self._housekeeper.cancel()
            self._housekeeper = None
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
        tracking, *_ = lane.call_many([_TRACKING, *_LOADS])
        try:
            await tracking
        except FAILURES as problem:  # not permitted: no near cache, and waiters look again instead of being told
            self.count_error(problem)
        else:
            self.tracking = True
            self.near.arm()
        await self._keep_house()

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
        else:
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

    # -- sending ---------------------------------------------------------------------------------------

    async def send(self, *command: Any) -> Any:
        """Redis's reply to one command. Raises FAILURES."""
        lane = self._ready()
        if not lane.unsupported:
            return await lane.call(*command)
        return await self.call(lambda client: _execute(client, command))

    async def send_all(self, *commands: tuple[Any, ...], ends: float | None = None) -> list[Any]:
        """The replies to several commands sent together. Raises FAILURES: the first, whatever became of the rest.

        Args:
            commands: what to send.
            ends: loop time at which waiting ends, for one of several steps of a call; None for the deadline of one.
        """
        lane = self._ready()
        if not lane.unsupported:
            return await _replies(lane.call_many(commands), ends)
        return await self.call(lambda client: _pipeline(client, commands), ends)

    async def run(
        self,
        script: Script,
        names: tuple[str, ...],
        *args: Any,
        before: Sequence[tuple[Any, ...]] = (),
        ends: float | None = None,
    ) -> Any:
        """Run a script over ``names``. Raises FAILURES.

        Args:
            script: one of ours.
            names: its keys.
            args: its arguments.
            before: commands to send before it, in the same write.
            ends: as for :meth:`send_all`.
        """
        command = ("EVALSHA", script.digest, len(names), *names, *args)
        if self._ready().unsupported:  # a cluster may have to send each of them to another node
            for each in before:
                await self.call(partial(_execute, command=each), ends)
            try:
                return await self.call(partial(_execute, command=command), ends)
            except Refused as problem:
                if problem.code != "NOSCRIPT":
                    raise
            for load in _LOADS:
                await self.call(partial(_execute, command=load), ends)
            return await self.call(partial(_execute, command=command), ends)
        try:
            return (await self.send_all(*before, command, ends=ends))[-1]
        except ReplyError as problem:
            if problem.code != "NOSCRIPT":
                raise
        return (await self.send_all(*_LOADS, command, ends=ends))[-1]  # they are lost together

    async def unlink(self, names: Sequence[str | bytes], *, before: Sequence[str | bytes] = ()) -> int:
        """Remove keys as they are, and ``before`` them others. Returns how many of ``names`` there were.

        Raises:
            FAILURES: Redis is away, late, or said no.
        """
        if not names:
            return 0
        if not self._ready().unsupported:
            doomed = (before, names) if before else (names,)
            return int((await self.send_all(*(("UNLINK", *some) for some in doomed)))[-1])
        # A cluster has many slots. What belongs together is in one, and so removed in this order.
        counts = await self.send_all(*(("UNLINK", name) for name in (*before, *names)))
        return sum(map(int, counts[len(before) :]))

    async def exists(self, names: Sequence[str]) -> int:
        """How many of the keys there are. Raises FAILURES."""
        if not self._ready().unsupported:
            return int(await self.send("EXISTS", *names))
        return sum(map(int, await self.send_all(*(("EXISTS", name) for name in names))))

    async def call(self, operation: Callable[[Redis], Awaitable[T]], ends: float | None = None) -> T:
        """Run an operation on a connection of the pool. Raises LinkDown or Refused, see :meth:`Link.call`."""
        lane = self._ready()
        if not lane.unsupported and not lane.up:
            raise LinkDown(lane.reason)
        ends = min(_now() + self.deadline, math.inf if ends is None else ends)
        if not self._link.up:
            if lane.unsupported and self._link.away:
                raise LinkDown("away")
            self._link.start()
            await self._link.wait_up(max(0.0, ends - _now()))
        return await self._link.call(operation, deadline=max(0.0, ends - _now()))

    def _ready(self) -> Lane:
        if not self.enabled:
            raise LinkDown("the cache is disabled")
        if self.lane is None:  # nobody called start(): the cache comes up by itself
            self.wake()
        assert self.lane is not None
        return self.lane

    # -- housekeeping ----------------------------------------------------------------------------------

    def count_error(self, problem: Exception | None = None) -> None:
        """Count one thing that Redis failed to do, and tell the operator if that was to refuse."""
        self.counters.connection_errors += 1
        if isinstance(problem, ReplyError | Refused):
            what = f"commands are refused ({problem.code})"
            self._outage.trouble(what, _now(), f"{what}. What they were for goes on without the cache.")

    def count_undecodable(self, key: str, problem: Exception) -> None:
        """Count a value that cannot be decoded, or should not be there, and is removed."""
        self.counters.undecodable += 1
        line = f"a value that cannot be decoded was removed ({keys.shape(key)}: {problem})"
        self._outage.trouble("values that cannot be decoded", _now(), line)

    def _too_large(self, command: bytes) -> None:
        """The reply to ``command`` was given up. What asked for it must go, or it would be asked for again."""
        reader = hiredis.Reader()
        reader.feed(command)
        name, *arguments = reader.gets()
        asked = arguments[:1] if name == b"GET" else []
        if name == b"EVALSHA":
            asked = arguments[2 : 2 + int(arguments[1])]
        for key in (raw.decode(errors="surrogateescape") for raw in asked):
            self.count_undecodable(key, ValueError("too large to be read"))
            self.pending.add(key)

    async def _housekeeping(self) -> None:
        rounds = 0
        while True:
            await asyncio.sleep(_LOOK)
            rounds += 1
            if (lane := self.lane) is not None and not lane.unsupported:
                answered = None if lane.up else max(lane.proven_at, self._looking_since)
                self._outage.look(_now(), answered, lane.reason)
            if self.connected and (self.pending or rounds % round(_HOUSEKEEPING / _LOOK) == 0):
                await self._keep_house()

    def settle_soon(self) -> None:
        """Deliver what is owed now, beside whatever the caller does next."""
        if self.connected and (self._settling is None or self._settling.done()):
            self._settling = asyncio.create_task(self._keep_house(), name="cache-settle")
            self._leaving.add(self._settling)
            self._settling.add_done_callback(self._leaving.discard)

    async def _keep_house(self) -> None:
        try:
            if self.pending:
                await self.settle()
            await self.counters.flush(self)
        except FAILURES:
            pass  # it stays where it is, for the next round


def _sealer(settings: CacheSettings) -> Sealer | None:
    if not settings.encryption_keys:
        return None
    from .seal import Sealer  # the cryptography package, which nobody else needs

    return Sealer(settings.encryption_keys)


async def _replies(futures: list[asyncio.Future[Any]], ends: float | None) -> list[Any]:
    if ends is not None:
        await asyncio.wait(futures, timeout=max(0.0, ends - _now()))
        late = [future for future in futures if not future.done()]
        for future in late:
            future.cancel()
        if late:
            raise LaneTimeout("no reply within what was left of the deadline")
    return [await future for future in futures]


async def _execute(client: Any, command: tuple[Any, ...]) -> Any:
    if command[0] == "SCRIPT":  # redis-py knows it by both words, and so to which nodes of a cluster it goes
        command = (f"{command[0]} {command[1]}", *command[2:])
    return await client.execute_command(*command)


async def _pipeline(client: Any, commands: tuple[tuple[Any, ...], ...]) -> list[Any]:
    pipe = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)
    return list(await pipe.execute())


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _nothing_owed() -> None:
    """Nobody invalidates."""


def _ignore(_: list[bytes] | None) -> None:
    """Nobody waits for changes."""
