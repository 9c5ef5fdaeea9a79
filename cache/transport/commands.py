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

from ..background import loop_time
from ..exceptions import CommandRejected, NotConnected
from ..settings import CacheSettings
from .capabilities import HUNG_UP, LOAD_SCRIPTS, PROBES, Capabilities
from .connection import Argument
from .listener import TransportListener
from .multiplexer import MultiplexedClient, outcome, replies
from .pool import PooledClient
from .redis_py import answers, execute, pipeline
from .scripts import Script

T = TypeVar("T")


class Transport:
    """The connections of one cache, and what is sent over them.

    Whatever sends raises a ``TransportError`` if there is no usable reply within the deadline, at once where there is
    no connection.

    Args:
        handshake: commands sent on every new multiplexed connection before it is used. Each may be rejected.
        largest_reply_bytes: a larger reply costs the multiplexed connection.

    Attributes:
        client: the multiplexed connection; None while switched off or not yet started.
        pool: the redis-py client for what the multiplexed connection does not carry.
        enabled: whether anything is sent.
        closed: whether the cache was closed: sending does not reconnect. :meth:`connect` makes it False again.
        deadline: seconds within which a call has to be answered.
        capabilities: what the server lacks.
    """

    def __init__(
        self,
        settings: CacheSettings,
        listener: TransportListener,
        *,
        handshake: Sequence[tuple[Argument, ...]],
        largest_reply_bytes: int,
    ) -> None:
        self.client: MultiplexedClient | None = None
        self.enabled = settings.enabled
        self.closed = False
        self.deadline = settings.deadline
        self.capabilities = Capabilities()
        self.pool = PooledClient(settings, self._probes, self._on_pool_up, listener.on_pool_failed)
        self._settings = settings
        self._listener = listener
        self._handshake = handshake
        self._largest_reply_bytes = largest_reply_bytes

    # -- connections -----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether Redis is believed to answer."""
        return self.client is not None and (self.client.up or (self.client.unsupported and self.pool.up))

    @property
    def pooled(self) -> bool:
        """Whether the pool carries everything: the server does not speak RESP3, or is a cluster."""
        return self.client is not None and self.client.unsupported

    @property
    def multiplexed(self) -> MultiplexedClient | None:
        """The multiplexed connection if it is up. Only on it do replies come in the order of the commands."""
        client = self.client
        return client if client is not None and client.up else None

    def connect(self) -> None:
        """Begin connecting in the background, unless that is under way."""
        self.closed = False
        if self.client is None:
            self.client = MultiplexedClient(
                self._settings.endpoint,
                self._listener,
                deadline=self.deadline,
                connect_timeout=self._settings.socket_connect_timeout,
                handshake=(*self._handshake, *LOAD_SCRIPTS, *PROBES),
                on_handshake=self._on_handshake,
                largest_reply_bytes=self._largest_reply_bytes,
            )
            self._listener.on_connecting()

    def enable(self) -> None:
        """Send again, and begin connecting in the background."""
        self.enabled = True
        self.connect()

    def disable(self) -> asyncio.Task[None] | None:
        """Send nothing until :meth:`enable`, and disconnect."""
        self.enabled = False
        return self.disconnect()

    def disconnect(self) -> asyncio.Task[None] | None:
        """Stop using Redis at once. Returns the task that closes the multiplexed connection, if there is one."""
        client, self.client = self.client, None
        self.pool.stop()
        return None if client is None else asyncio.create_task(client.close(), name="cache-disconnect")

    def _usable(self) -> MultiplexedClient:
        """The multiplexed client, which knows whether the server supports it. Connects if nothing has yet."""
        if not self.enabled:
            raise NotConnected("the cache is disabled")
        if self.client is None:
            if self.closed:
                raise NotConnected("the cache is closed")
            self.connect()
        assert self.client is not None
        return self.client

    # -- what the server lacks -------------------------------------------------------------------------

    async def probe(self) -> None:
        """Look again for what the server refuses."""
        one_by_one = HUNG_UP in self.capabilities.refused.values()
        probing = self.call(partial(answers, probes=PROBES)) if one_by_one else self.send_each(*PROBES)
        self._learn(Capabilities.found(await probing))

    def _learn(self, capabilities: Capabilities) -> None:
        self.capabilities = capabilities.knowing(self.capabilities)
        self._listener.on_capabilities(self.capabilities.lost())

    def _on_handshake(self, replies: list[Any]) -> None:
        if self._settings.endpoint.sentinels:
            self.pool.stop()  # its client may still be with the primary of before; it connects when it is needed
        own = len(self._handshake)
        self._learn(Capabilities.found(replies[-len(PROBES) :]))
        self._listener.on_handshake(replies[:own])

    def _probes(self) -> Sequence[tuple[Any, ...]]:
        return PROBES if self.pooled else ()  # the multiplexed connection has asked

    def _on_pool_up(self, probed: list[Any]) -> None:
        if self.pooled:
            self._learn(Capabilities.found(probed))
        self._listener.on_pool_connected()

    # -- commands --------------------------------------------------------------------------------------

    async def send(self, *command: Any) -> Any:
        """Send one command and return its reply."""
        client = self._usable()
        if not client.unsupported:
            return await client.call(*command)
        self.capabilities.check((command,))
        return await self.call(partial(execute, command=command))

    async def send_all(self, *commands: tuple[Any, ...], deadline: float | None = None) -> list[Any]:
        """Send commands together and return their replies.

        Args:
            commands: what to send.
            deadline: loop time at which waiting ends, if that is sooner than usual: for one step of a longer call.

        Raises:
            TransportError: the first failure. Other commands may have been executed.
        """
        client = self._usable()
        if not client.unsupported:
            return await replies(client.call_many(commands), deadline)
        self.capabilities.check(commands)
        return await self.call(partial(pipeline, commands=commands), deadline)

    async def send_each(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands together and return a reply or a ``TransportError`` for each.

        Raises:
            TransportError: nothing was sent, or nothing was answered.
        """
        client = self._usable()
        if not client.unsupported:
            return [await outcome(future) for future in client.call_many(commands)]
        self.capabilities.check(commands)
        return await self.call(partial(pipeline, commands=commands, each=True))

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
        """
        client = self._usable()
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
                    self._learn(Capabilities(self.capabilities.refused | {"EVAL": problem.code}))
            before = ()
        raise CommandRejected(" ".join(self.capabilities.refused.values()))

    async def unlink(self, names: Sequence[str | bytes], *, before: Sequence[str | bytes] = ()) -> int:
        """Delete ``before``, then ``names``. Returns how many of ``names`` existed."""
        if not names:
            return 0
        if not self._usable().unsupported:
            groups = (before, names) if before else (names,)
            return int((await self.send_all(*((self.capabilities.delete, *group) for group in groups)))[-1])
        # The keys may be in many slots of a cluster. A key and its guards share a slot, so their order holds.
        counts = await self.send_all(*((self.capabilities.delete, name) for name in (*before, *names)))
        return sum(map(int, counts[len(before) :]))

    async def exists(self, names: Sequence[str]) -> int:
        """Return how many of the keys exist."""
        return sum(await self.send_all(*(("EXISTS", name) for name in names))) if names else 0

    async def call(self, operation: Callable[[Redis], Awaitable[T]], deadline: float | None = None) -> T:
        """Run an operation of redis-py's client on a connection of the pool. ``deadline``: as for :meth:`send_all`."""
        client = self._usable()
        if not client.unsupported and not client.up:
            raise NotConnected(client.reason)
        deadline = min(loop_time() + self.deadline, math.inf if deadline is None else deadline)
        if not self.pool.up:
            if client.unsupported and self.pool.away:
                raise NotConnected("away")
            self.pool.start()
            await self.pool.wait_up(max(0.0, deadline - loop_time()))
        return await self.pool.call(operation, timeout=max(0.0, deadline - loop_time()))
