"""Sends commands to Redis: over the multiplexed connection, or over the pool where there cannot be one.

Single commands, small groups and scripts share one connection per event loop. The pool carries what takes long or
needs a connection of its own (scans, INFO, locks), and everything if the server does not speak RESP3 or is a cluster.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from redis.asyncio import Redis

from ..exceptions import CommandRejected, NotConnected
from .capabilities import PROBES, Capabilities
from .lifecycle import Connections
from .multiplexer import outcome, replies
from .redis_py import execute, pipeline
from .scripts import Script

T = TypeVar("T")


class Transport(Connections):
    """Sends commands over the connections of one cache."""

    async def send(self, *command: Any) -> Any:
        """Send one command and return its reply.

        Raises:
            TransportError: no usable reply within the deadline.
        """
        client = self.usable()
        if not client.unsupported:
            return await client.call(*command)
        return await self.call(lambda redis: execute(redis, command))

    async def send_all(self, *commands: tuple[Any, ...], deadline: float | None = None) -> list[Any]:
        """Send commands together and return their replies.

        Args:
            commands: what to send.
            deadline: loop time at which waiting ends, for one step of a longer call; None gives them a deadline of
                their own.

        Raises:
            TransportError: the first failure. Other commands may have been executed.
        """
        client = self.usable()
        if not client.unsupported:
            return await replies(client.call_many(commands), deadline)
        return await self.call(lambda redis: pipeline(redis, commands), deadline)

    async def send_each(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands together and return a reply or a ``TransportError`` for each.

        Raises:
            TransportError: nothing was sent, or nothing was answered.
        """
        client = self.usable()
        if not client.unsupported:
            return [await outcome(future) for future in client.call_many(commands)]
        return await self.call(lambda redis: pipeline(redis, commands, each=True))

    async def run(
        self,
        script: Script,
        names: tuple[str, ...],
        *args: Any,
        before: Sequence[tuple[Any, ...]] = (),
        deadline: float | None = None,
    ) -> Any:
        """Run a script and return its reply.

        Args:
            script: one of :mod:`cache.transport.scripts`.
            names: its keys.
            args: its arguments.
            before: commands to send before it, in the same write.
            deadline: as for :meth:`send_all`.

        Raises:
            TransportError: no usable reply within the deadline.
        """
        client = self.usable()
        ways = self.capabilities.ways(script, names, args)
        for way in ways:
            try:
                if not client.unsupported:
                    return (await self.send_all(*before, *way, deadline=deadline))[-1]
                # In a cluster each command may belong to another node.
                return [await self.call(partial(execute, command=each), deadline) for each in (*before, *way)][-1]
            except CommandRejected as problem:
                if way is ways[-1] or not (problem.code == "NOSCRIPT" if way[0][0] == "EVALSHA" else problem.missing):
                    raise
                if "EVALSHA" in self.capabilities.refused:
                    self.learn(Capabilities(self.capabilities.refused | {"EVAL": problem.code}))
            before = ()
        raise CommandRejected(" ".join(self.capabilities.refused.values()))

    async def unlink(self, names: Sequence[str | bytes], *, before: Sequence[str | bytes] = ()) -> int:
        """Delete ``before``, then ``names``. Returns how many of ``names`` existed.

        Raises:
            TransportError: no usable reply within the deadline.
        """
        if not names:
            return 0
        if not self.usable().unsupported:
            groups = (before, names) if before else (names,)
            return int((await self.send_all(*((self.capabilities.delete, *group) for group in groups)))[-1])
        # The keys may be in many slots of a cluster. A key and its guards share a slot, so their order holds.
        counts = await self.send_all(*((self.capabilities.delete, name) for name in (*before, *names)))
        return sum(map(int, counts[len(before) :]))

    async def exists(self, names: Sequence[str]) -> int:
        """Return how many of the keys exist.

        Raises:
            TransportError: no usable reply within the deadline.
        """
        if not names:
            return 0
        if not self.usable().unsupported:
            return int(await self.send("EXISTS", *names))
        return sum(map(int, await self.send_all(*(("EXISTS", name) for name in names))))

    async def call(self, operation: Callable[[Redis], Awaitable[T]], deadline: float | None = None) -> T:
        """Run an operation on a connection of the pool.

        Args:
            operation: takes redis-py's client, returns an awaitable.
            deadline: loop time at which waiting ends, if that is sooner than the usual deadline.

        Raises:
            TransportError: no usable reply within the deadline.
        """
        client = self.usable()
        if not client.unsupported and not client.up:
            raise NotConnected(client.reason)
        deadline = min(_now() + self.deadline, math.inf if deadline is None else deadline)
        if not self.pool.up:
            if client.unsupported and self.pool.away:
                raise NotConnected("away")
            self.pool.start()
            await self.pool.wait_up(max(0.0, deadline - _now()))
        return await self.pool.call(operation, timeout=max(0.0, deadline - _now()))

    async def probe(self) -> None:
        """Look again for what the server refuses.

        Raises:
            TransportError: nothing was answered.
        """
        self.learn(Capabilities.found(PROBES, await self.send_each(*PROBES)))


def _now() -> float:
    return asyncio.get_running_loop().time()
