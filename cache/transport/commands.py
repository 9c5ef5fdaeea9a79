"""Sends commands to Redis, through the client that suits what answers at the URL.

That is one multiplexed connection; in a cluster one for each node in use; and redis-py's pool where the server does not
speak RESP3. The handshake of the first connection tells, and a later one may tell otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ..background import BackgroundTasks
from ..exceptions import CacheUnavailable, CommandRejected, NotConnected, WrongKind
from ..redis_url import Endpoint
from ..settings import CacheSettings
from .capabilities import LOAD_SCRIPTS, NO_KEY, PROBES, Capabilities, probes
from .client import Client, ClientListener, Command, Node, TransportListener, send_all, send_each
from .cluster.cluster import ClusterClient
from .fallback.pool import PooledClient
from .multiplexer import MultiplexedClient
from .scripts import Script


class Transport:
    """The connections of one cache, and what is sent over them.

    Whatever sends raises a ``TransportError`` if there is no usable reply within the deadline, at once where there is
    no connection.

    Args:
        handshake: returns the commands sent on a new multiplexed connection to a node. Each may be rejected.

    Attributes:
        client: what commands are sent with; None while switched off or not yet started.
        enabled: whether anything is sent.
        closed: whether the cache was closed: sending does not reconnect. :meth:`connect` makes it False again.
        deadline: seconds within which a call has to be answered.
        capabilities: what the server lacks; of a cluster: what any node lacks.
    """

    def __init__(
        self,
        settings: CacheSettings,
        listener: TransportListener,
        *,
        handshake: Callable[[Node], Sequence[Command]],
    ) -> None:
        self.client: Client | None = None
        self.enabled = settings.enabled
        self.closed = False
        self.deadline = settings.deadline
        self.capabilities = Capabilities()
        self._found: dict[Node, Capabilities] = {}  # for each node in use
        self._settings, self._listener = settings, listener
        self.on_push, self.on_moved = listener.on_push, listener.on_moved
        self.on_reply_too_large = listener.on_reply_too_large
        self._handshake = handshake
        self._upgrade: MultiplexedClient | None = None  # beside the pool: finds out when the server speaks RESP3
        self._closing = BackgroundTasks()

    # -- connections -----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether Redis is believed to answer."""
        return self.client is not None and self.client.up

    @property
    def complete(self) -> bool:
        """Whether Redis is believed to answer for every key."""
        return self.client is not None and self.client.complete

    def connect(self) -> None:
        """Begin connecting in the background, unless that is under way."""
        self.closed = False
        if self.client is None:
            self._connect_to_one()
            self._listener.on_connecting()

    def enable(self) -> None:
        """Send again, and begin connecting in the background."""
        self.enabled = True
        self.connect()

    def disable(self) -> None:
        """Send nothing until :meth:`enable`, and disconnect."""
        self.enabled = False
        self.disconnect()

    def disconnect(self) -> None:
        """Stop using Redis at once. The connections close in the background; see :meth:`disconnected`."""
        for client in (self.client, self._upgrade):
            self._close(client)
        self.client = self._upgrade = None

    async def disconnected(self) -> None:
        """Wait at most two seconds until every connection is closed."""
        await self._closing.ended(2.0)

    def _connect_to_one(self) -> None:
        self.client = client = self._multiplexed(self._settings.endpoint, self)
        client.start()

    def _multiplexed(self, endpoint: Endpoint, listener: ClientListener, **of_a_cluster: Any) -> MultiplexedClient:
        return MultiplexedClient(
            endpoint,
            listener,
            self._settings,
            handshake=lambda node: (*self._handshake(node), *LOAD_SCRIPTS, *PROBES),
            **of_a_cluster,
        )

    def _close(self, client: Client | None) -> None:
        if client is not None:
            self._closing.spawn(client.close(), name="cache-disconnect")

    # -- ClientListener --------------------------------------------------------------------------------

    def _uses(self, node: Node) -> bool:
        """Whether the node is still in use. A client that was replaced may still report what it was connecting to."""
        return node is self._upgrade or (self.client is not None and self.client.uses(node))

    def on_wrong_kind(self, node: Node, found: WrongKind) -> None:
        """Use the client that suits the server. The one beside the pool goes on asking."""
        if not self._uses(node):
            return
        if found.slots is not None:
            self.disconnect()
            self.client = ClusterClient(self._settings, found.slots, self, self._multiplexed)
        elif found.resp3:  # no cluster any more
            self._close(self.client)
            self._connect_to_one()
        elif node is self.client and isinstance(node, MultiplexedClient):
            self._upgrade, self.client = node, PooledClient(self._settings, self)
        else:
            return
        self.on_moved(lambda _: True)

    def on_handshake(self, node: Node, replies: list[Any]) -> None:
        """Learn what the server lacks."""
        if not self._uses(node):
            return
        own = len(replies) - len(LOAD_SCRIPTS) - len(PROBES) if node.resp3 else 0  # the pool sends the probes alone
        self._listener.on_handshake(node, replies[:own])
        self._learn({node: Capabilities.found(replies[-len(PROBES) :] if node.resp3 else replies)})

    def on_connected(self, node: Node) -> None:
        """The server may speak RESP3 by now."""
        if node is self._upgrade:
            self._close(self.client)
            self.client, self._upgrade = self._upgrade, None
        self._listener.on_connected(node)

    def on_disconnected(self, node: Node, reason: str) -> None:
        """Report it, unless the pool is in use."""
        if node is not self._upgrade and self._uses(node):
            self._listener.on_disconnected(node, reason)

    # -- what the server lacks -------------------------------------------------------------------------

    async def probe(self) -> None:
        """Look again for what the server refuses."""
        client = self._usable()
        if isinstance(client, PooledClient):
            self._learn({client: Capabilities.found(await client.probe())})
        else:
            up = [node for node in client.nodes() if node.up]
            asked = [send_each(node, probes(client.tag_of(node) or NO_KEY)) for node in up]
            said = dict(zip(up, await asyncio.gather(*asked), strict=True))
            answered = [node for node in up if not any(isinstance(reply, CacheUnavailable) for reply in said[node])]
            self._learn({node: Capabilities.found(said[node]) for node in answered})  # others: what they said before

    def _learn(self, news: dict[Node, Capabilities]) -> None:
        self._found = {node: found for node, found in (self._found | news).items() if self._uses(node)}
        self._know(Capabilities.of_all(self._found.values()).knowing(self.capabilities))

    def _know(self, capabilities: Capabilities) -> None:
        self.capabilities = capabilities
        self._listener.on_capabilities(capabilities.lost())

    # -- commands --------------------------------------------------------------------------------------

    def _usable(self, commands: Sequence[Command] = ()) -> Client:
        """The client. Connects if nothing has yet; rejects what would cost the connection."""
        if not self.enabled:
            raise NotConnected("the cache is disabled")
        if self.client is None:
            if self.closed:
                raise NotConnected("the cache is closed")
            self.connect()
        assert self.client is not None
        if self.capabilities.refused:
            self.capabilities.check(commands)
        return self.client

    async def answers(self) -> bool:
        """Whether Redis answers a PING; of a cluster: whether any node serves keys. Raises TransportError."""
        await self._usable().ping()
        return True

    async def send(self, *command: Any) -> Any:
        """Send one command and return its reply."""
        return await self._usable((command,)).call(*command)

    async def send_all(self, *commands: Command, deadline: float | None = None) -> list[Any]:
        """Send commands together and return their replies. Raises the first failure; see ``client.send_all``."""
        return await send_all(self._usable(commands), commands, deadline)

    async def send_each(self, *commands: Command) -> list[Any]:
        """Send commands together and return a reply or a ``TransportError`` for each."""
        return await send_each(self._usable(commands), commands)

    async def run(
        self,
        script: Script,
        names: tuple[str, ...],
        *args: Any,
        before: Sequence[Command] = (),
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
        ways = self.capabilities.ways(script, names, args)
        for way in ways:
            try:
                return (await self.send_all(*before, *way, deadline=deadline))[-1]
            except CommandRejected as problem:
                another_may_do = problem.code == "NOSCRIPT" if way[0][0] == "EVALSHA" else problem.missing
                if way is ways[-1] or not another_may_do:
                    raise
                if way[0][0] == "EVAL" and self.capabilities.needs_eval:
                    self._know(Capabilities(self.capabilities.refused | {"EVAL": problem.code}))
            before = ()
        raise CommandRejected(" ".join(self.capabilities.refused.values()))

    async def unlink(self, names: Sequence[str | bytes], *, before: Sequence[str | bytes] = ()) -> int:
        """Delete ``before``, then ``names``. Returns how many of ``names`` existed."""
        delete = self.capabilities.delete
        if names and self._usable().only:
            groups = (before, names) if before else (names,)
            return int((await self.send_all(*((delete, *group) for group in groups)))[-1])
        # A key and its guards share a slot of a cluster, so their order holds.
        counts = await self.send_all(*((delete, name) for name in (*before, *names)))
        return sum(map(int, counts[len(before) :]))

    async def exists(self, names: Sequence[str]) -> int:
        """Return how many of the keys exist, of those whose node answers."""
        replies = await self.send_each(*(("EXISTS", name) for name in names))
        answered = [reply for reply in replies if not isinstance(reply, Exception)]
        if replies and not answered:
            raise replies[0]
        return sum(answered)

    def by_node(self, names: Sequence[str]) -> list[list[str]]:
        """The keys in groups, one for each server that has some."""
        client, groups = self._usable(), dict[Node, list[str]]()
        if client.only:
            return [list(names)]
        for name in names:
            groups.setdefault(client.node_of(name), []).append(name)
        return list(groups.values())

    # -- whole servers ---------------------------------------------------------------------------------

    async def nodes(self) -> tuple[Sequence[Node], int]:
        """The servers that hold all keys together now, and a number that changes when keys move between them."""
        client = self._usable()
        await client.refresh()
        return client.nodes(), client.topology

    async def send_to(self, node: Node, *command: Any) -> Any:
        """Send a command to one of the :meth:`nodes`."""
        self._usable((command,))
        return await node.call(*command)

    async def on_each_node(self, *command: Any) -> list[Any]:
        """Send a command to every node at the same time. Raises the first failure."""
        client = self._usable((command,))
        return [await reply for reply in [node.call(*command) for node in client.nodes()]]
