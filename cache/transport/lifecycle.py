"""The connections of one cache: which there are, since when, and what the server at their other end lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ..exceptions import NotConnected
from ..settings import CacheSettings
from .capabilities import PROBES, Capabilities
from .connection import Argument
from .listener import TransportListener
from .multiplexer import MultiplexedClient
from .pool import PooledClient


class Connections:
    """The connections of one cache.

    Args:
        settings: where Redis is and how long a command may take.
        listener: learns about connections and push messages.
        handshake: commands sent on every new multiplexed connection before it is used. Each may be rejected.
        largest_reply_bytes: bytes; a larger reply costs the multiplexed connection.

    Attributes:
        client: the multiplexed connection; None while switched off or not yet started.
        pool: the redis-py client for what the multiplexed connection does not carry.
        enabled: whether anything is sent.
        closed: whether the cache was closed. Nothing reconnects until it is started again.
        deadline: seconds within which a call has to be answered.
        capabilities: what the server lacks.
        connecting_since: loop time at which the present client began to connect.
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
        self.connecting_since = 0.0
        self._settings = settings
        self._listener = listener
        self._handshake = handshake
        self._largest_reply_bytes = largest_reply_bytes
        self.capabilities = Capabilities()
        self.pool = PooledClient(settings, self._probes, self._on_pool_up, listener.on_pool_failed)

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
                deadline=self.deadline,
                connect_timeout=self._settings.socket_connect_timeout,
                handshake=(*self._handshake, *PROBES),
                on_handshake=self._on_handshake,
                on_connected=self._listener.on_connected,
                on_disconnected=self._listener.on_disconnected,
                on_push=self._listener.on_push,
                largest_reply_bytes=self._largest_reply_bytes,
                on_reply_too_large=self._listener.on_reply_too_large,
            )
            self.connecting_since = _now()
            self.client.start()
            self._listener.on_connecting()

    def enable(self) -> None:
        """Send again, and begin connecting in the background."""
        self.enabled = True
        self.connect()

    def disable(self) -> asyncio.Task[None] | None:
        """Send nothing until :meth:`enable`, and disconnect."""
        self.enabled = False
        return self.disconnect()

    def forbid_reconnecting(self) -> None:
        """Do not reconnect by sending: the cache is being closed. :meth:`connect` allows it again."""
        self.closed = True

    def disconnect(self) -> asyncio.Task[None] | None:
        """Stop using Redis at once. Returns the task that closes the multiplexed connection, if there is one."""
        client, self.client = self.client, None
        self.pool.stop()
        return None if client is None else asyncio.create_task(client.close(), name="cache-disconnect")

    def _on_handshake(self, replies: list[Any]) -> None:
        self.learn(Capabilities.found(PROBES, replies[len(self._handshake) :]))
        self._listener.on_handshake(replies[: len(self._handshake)])

    def _probes(self) -> Sequence[tuple[Any, ...]]:
        return PROBES if self.pooled else ()  # the multiplexed connection has asked

    def _on_pool_up(self, probed: list[Any]) -> None:
        if self.pooled:
            self.learn(Capabilities.found(PROBES, probed))
        self._listener.on_pool_connected()

    def learn(self, capabilities: Capabilities) -> None:
        """Note what the server lacks, and report what is lost."""
        self.capabilities = capabilities.knowing(self.capabilities)
        self._listener.on_capabilities(self.capabilities.lost())

    def usable(self) -> MultiplexedClient:
        """Return the multiplexed client, which knows whether the server supports it. Connects if nothing has yet.

        Raises:
            NotConnected: the cache is disabled or closed.
        """
        if not self.enabled:
            raise NotConnected("the cache is disabled")
        if self.client is None:
            if self.closed:
                raise NotConnected("the cache is closed")
            self.connect()
        assert self.client is not None
        return self.client


def _now() -> float:
    return asyncio.get_running_loop().time()
