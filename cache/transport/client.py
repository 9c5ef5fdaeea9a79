"""What every way to reach Redis offers, and what it reports: one server, a cluster, or redis-py's pool.

``commands.Transport`` chooses one of them by what the handshake finds; nothing above it knows which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Protocol, Self, TypeAlias

from ..exceptions import CommandTimeout, TransportError, WrongKind

Argument: TypeAlias = bytes | str | int
Command: TypeAlias = tuple[Any, ...]


class Client(Protocol):
    """Sends commands to Redis."""

    @property
    def reason(self) -> str:
        """Why nothing is sent, or not everything; empty while all is well. It holds no credentials."""

    @property
    def only(self) -> Node | None:
        """The server of every key. None if there may be several: no command may name keys of two slots then."""

    @property
    def up(self) -> bool:
        """Whether a command would be sent now; of a cluster: to any of its nodes."""

    @property
    def complete(self) -> bool:
        """Whether commands would be sent for every key, as far as is known."""

    @property
    def last_answer(self) -> float:
        """Loop time at which Redis last answered, or connecting began."""

    @property
    def topology(self) -> int:
        """Changes whenever slots have moved from one node to another."""

    def node_of(self, key: str) -> Node:
        """The server that holds ``key``."""

    def nodes(self) -> Sequence[Node]:
        """The servers that hold all keys together."""

    def uses(self, node: Node) -> bool:
        """Whether commands may be sent to this server, of whichever keys."""

    async def refresh(self) -> None:
        """Find out which servers there are now."""

    def tag_of(self, node: Node) -> str | None:
        """What names a key of this node's own: a hash tag of one of its slots, and its id.

        The id tells the key from that of the node which had the slot before. Empty if there is one server; None while
        slots or id are not known.
        """

    def call(self, *args: Argument) -> asyncio.Future[Any]:
        """Send one command. The future becomes its reply, or fails with a ``TransportError``."""

    def call_many(self, commands: Sequence[Command]) -> list[asyncio.Future[Any]]:
        """Send commands together. Those for one server are executed in their order."""

    async def ping(self) -> None:
        """Find out whether Redis answers; of a cluster: whether any node does. Raises TransportError."""

    async def close(self) -> None:
        """End every task and connection."""


class Node(Client, Protocol):
    """One server."""

    @property
    def name(self) -> str:
        """Its address."""

    @property
    def resp3(self) -> bool:
        """Whether it is reached over a multiplexed connection, which needs RESP3. Else it is over redis-py's pool."""

    needed_at: float
    """Loop time at which a near cache has last relied on ``proven_at``, or begun to read what it may keep."""

    @property
    def proven_at(self) -> float:
        """Loop time at which it certainly answered on the present connection. A near cache may rely on it."""


class OneServer:
    """The part of :class:`Client` that concerns several servers, for a client that is its own only :class:`Node`."""

    topology: Final = 0

    def node_of(self, _: str) -> Self:
        """This client."""
        return self

    def nodes(self) -> tuple[Self]:
        """This client."""
        return (self,)

    def uses(self, node: object) -> bool:
        """Whether it is this client."""
        return node is self

    async def refresh(self) -> None:
        """Nothing to find out: there is one server."""

    async def ping(self: Client) -> None:
        """Find out whether it answers."""
        await self.call("PING")

    def tag_of(self, _: Node) -> str:
        """Empty: every key is on this server."""
        return ""


class NodeListener(Protocol):
    """What is learned about the connections to nodes."""

    def on_handshake(self, node: Node, replies: list[Any]) -> None:
        """The replies to the set-up commands of a new connection, before it is used. Rejections are among them."""

    def on_connected(self, node: Node) -> None:
        """The node is usable: once for each connection."""

    def on_disconnected(self, node: Node, reason: str) -> None:
        """The node is not usable; called again when the reason changes. It holds no credentials.

        Without a reason it is an outage only if it lasts.
        """

    def on_push(self, node: Node, push: list[Any]) -> None:
        """A push message, in order with the replies."""

    def on_reply_too_large(self, key: str) -> None:
        """The reply to a command about ``key``, or about what guards it, is larger than any value of ours."""


class ClientListener(NodeListener, Protocol):
    """What the owner of a client learns beside."""

    def on_wrong_kind(self, node: Node, found: WrongKind) -> None:
        """Another client is needed for what answers there."""


class ClusterListener(ClientListener, Protocol):
    """What the owner of a cluster's client learns beside."""

    def on_moved(self, includes: Callable[[str], bool], moves: Collection[tuple[Node, Node]] = ()) -> None:
        """Keys have another server; ``includes`` says which. ``moves``: from where to where, with their values."""


class TransportListener(NodeListener, Protocol):
    """What the owner of a transport learns about it."""

    def on_moved(self, includes: Callable[[str], bool], moves: Collection[tuple[Node, Node]] = ()) -> None:
        """As above."""

    def on_connecting(self) -> None:
        """Connecting has begun."""

    def on_capabilities(self, lost: dict[str, str]) -> None:
        """What is lost without each command that the server refuses, as found in a handshake or later."""


async def send_all(client: Client, commands: Sequence[Command], deadline: float | None = None) -> list[Any]:
    """Send commands together and return their replies.

    Args:
        client: where to.
        commands: what.
        deadline: loop time at which waiting ends, if that is sooner than usual: for one step of a longer call.

    Raises:
        TransportError: the first failure. Other commands may have been executed.
    """
    futures = client.call_many(commands)
    if deadline is not None:
        # Not asyncio.timeout: if our loop was blocked, it cancels also what a reply has just arrived for.
        _, late = await asyncio.wait(futures, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        for future in late:
            future.cancel()
        if late:
            raise CommandTimeout("no reply within what was left of the deadline")
    return [await future for future in futures]


async def send_each(client: Client, commands: Sequence[Command]) -> list[Any]:
    """Send commands together and return a reply or a ``TransportError`` for each."""
    outcomes: list[Any] = []
    for future in client.call_many(commands):
        try:
            outcomes.append(await future)
        except TransportError as problem:
            outcomes.append(problem)
    return outcomes
