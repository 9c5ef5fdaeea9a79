"""How a command reaches Redis: over the hot lane, or over the pool where a lane cannot be had.

Single commands, small groups and scripts travel over the lane, one connection that all callers of this process
share. The pool carries what is long or holds a connection of its own (scans, INFO, locks), and everything where
the server speaks no RESP3 or is a cluster.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from redis.asyncio import Redis

from ..exceptions import CommandRejected, CommandTimeout, NotConnected, TransportError
from .multiplexer import MultiplexedClient
from .pool import PooledClient
from .scripts import ALL, Script

LOADS: Final = tuple(("SCRIPT", "LOAD", script.text) for script in ALL)
"""The commands that make our scripts known to a server."""
T = TypeVar("T")


class Transport(ABC):
    """Sends commands. Who it belongs to says when there is a lane.

    Attributes:
        lane: the connection that is shared; None while switched off or not yet started.
        enabled: whether anything is sent.
        closed: whether it was closed: nothing begins to connect again, until it is started again.
        deadline: seconds within which a call is to be answered.
    """

    lane: MultiplexedClient | None
    enabled: bool
    closed: bool
    deadline: float
    _link: PooledClient

    @abstractmethod
    def wake(self) -> None:
        """Begin connecting, unless that is under way."""

    async def send(self, *command: Any) -> Any:
        """Redis's reply to one command. Raises TransportError."""
        lane = self._ready()
        if not lane.unsupported:
            return await lane.call(*command)
        return await self.call(lambda client: _execute(client, command))

    async def send_all(self, *commands: tuple[Any, ...], ends: float | None = None) -> list[Any]:
        """The replies to several commands sent together. Raises TransportError: the first, whatever became of the rest.

        Args:
            commands: what to send.
            ends: loop time at which waiting ends, for one of several steps of a call; None for the deadline of one.
        """
        lane = self._ready()
        if not lane.unsupported:
            return await _replies(lane.call_many(commands), ends)
        return await self.call(lambda client: _pipeline(client, commands), ends)

    async def send_each(self, *commands: tuple[Any, ...]) -> list[Any]:
        """As :meth:`send_all`, but what became of each: a failure of one stands where its reply would.

        Raises:
            TransportError: nothing could be sent, or nothing was answered.
        """
        lane = self._ready()
        if not lane.unsupported:
            return [await _outcome(future) for future in lane.call_many(commands)]
        ends = _now() + self.deadline
        try:
            return await self.call(lambda client: _pipeline(client, commands), ends)
        except CommandRejected:  # redis-py says so of the first, and nothing of the others
            each = (self.call(partial(_execute, command=command), ends) for command in commands)
            return await asyncio.gather(*each, return_exceptions=True)

    async def run(
        self,
        script: Script,
        names: tuple[str, ...],
        *args: Any,
        before: Sequence[tuple[Any, ...]] = (),
        ends: float | None = None,
    ) -> Any:
        """Run a script over ``names``. Raises TransportError.

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
            except CommandRejected as problem:
                if problem.code != "NOSCRIPT":
                    raise
            for load in LOADS:
                await self.call(partial(_execute, command=load), ends)
            return await self.call(partial(_execute, command=command), ends)
        try:
            return (await self.send_all(*before, command, ends=ends))[-1]
        except CommandRejected as problem:
            if problem.code != "NOSCRIPT":
                raise
        return (await self.send_all(*LOADS, command, ends=ends))[-1]  # they are lost together

    async def unlink(self, names: Sequence[str | bytes], *, before: Sequence[str | bytes] = ()) -> int:
        """Remove keys as they are, and ``before`` them others. Returns how many of ``names`` there were.

        Raises:
            TransportError: Redis is away, late, or said no.
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
        """How many of the keys there are. Raises TransportError."""
        if not self._ready().unsupported:
            return int(await self.send("EXISTS", *names))
        return sum(map(int, await self.send_all(*(("EXISTS", name) for name in names))))

    async def call(self, operation: Callable[[Redis], Awaitable[T]], ends: float | None = None) -> T:
        """Run an operation on a connection of the pool."""
        lane = self._ready()
        if not lane.unsupported and not lane.up:
            raise NotConnected(lane.reason)
        ends = min(_now() + self.deadline, math.inf if ends is None else ends)
        if not self._link.up:
            if lane.unsupported and self._link.away:
                raise NotConnected("away")
            self._link.start()
            await self._link.wait_up(max(0.0, ends - _now()))
        return await self._link.call(operation, deadline=max(0.0, ends - _now()))

    def _ready(self) -> MultiplexedClient:
        if not self.enabled:
            raise NotConnected("the cache is disabled")
        if self.lane is None and self.closed:
            raise NotConnected("the cache is closed")
        if self.lane is None:  # nobody called start(): the cache comes up by itself
            self.wake()
        assert self.lane is not None
        return self.lane


async def _replies(futures: list[asyncio.Future[Any]], ends: float | None) -> list[Any]:
    if ends is not None:
        await asyncio.wait(futures, timeout=max(0.0, ends - _now()))
        late = [future for future in futures if not future.done()]
        for future in late:
            future.cancel()
        if late:
            raise CommandTimeout("no reply within what was left of the deadline")
    return [await future for future in futures]


async def _outcome(future: asyncio.Future[Any]) -> Any:
    try:
        return await future
    except TransportError as problem:
        return problem


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
