"""A Redis cluster: one multiplexed connection to each primary in use, opened when a key first needs it.

While a node is away the others go on answering for their own slots. What a node rejects because a slot moves or is
moving (MOVED, ASK, TRYAGAIN) is sent again within the deadline of the call.

Source of the protocol: the Redis cluster specification.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from ...background import loop_time
from ...exceptions import CommandRejected, NotConnected, WrongKind
from ...keys import system_server
from ...redis_url import Endpoint
from ...settings import CacheSettings
from ..client import Argument, ClientListener, ClusterListener, Command, Node
from ..connection import Redirect
from ..handshake import NO_SLOTS
from ..multiplexer import MultiplexedClient
from ..packing import key_of
from ..roles import CLUSTER_DOWN, DEMOTED, REPLICA
from .discovery import Discovery
from .nodes import Nodes
from .redirections import Redirections
from .slot_table import SlotTable
from .topology import Address, ranges

LOOK_AGAIN: Final = 30.0  # seconds until a cluster whose slots are not to be learned is tried again
_ANSWERED: Final = ("refused", CLUSTER_DOWN)  # how reasons begin that a node has given itself
_NEVER_REACHED: Final = " (as the cluster announces it; reached elsewhere? set CACHE_CLUSTER_ADDRESS_MAP)"


class OpenNode(Protocol):
    """Makes the client of one node, which connects when it is first used."""

    def __call__(
        self,
        endpoint: Endpoint,
        listener: ClientListener,
        *,
        redirect: Redirect,
        own_key: Callable[[Node, bool], str | None],
        on_late: Callable[[], None],
    ) -> MultiplexedClient:
        """See :class:`MultiplexedClient`."""


class ClusterClient:
    """The connections to a cluster.

    Args:
        settings: of the cache. The nodes have the credentials and the TLS context of the URL's node.
        slots: what that node replied to CLUSTER SLOTS. If it is empty the node has every slot, until it says otherwise.
        listener: learns about the nodes that have slots.
        open_node: makes the client of a node.
    """

    only: Final = None

    def __init__(self, settings: CacheSettings, slots: Any, listener: ClusterListener, open_node: OpenNode) -> None:
        self._listener = listener
        self.on_handshake, self.on_push = listener.on_handshake, listener.on_push
        self.on_reply_too_large = listener.on_reply_too_large
        self._reached: set[str] = set()  # names of nodes that have answered
        endpoint, address_map = settings.endpoint, settings.cluster_address_map
        seed = endpoint.host, endpoint.port

        def open_at(address: Address) -> MultiplexedClient:
            there = replace(endpoint, host=address[0], port=address[1])
            return open_node(
                there,
                self,
                redirect=lambda *rejected: self._redirections.redirect(address, *rejected),
                own_key=self._asked,
                on_late=self._on_late,
            )

        self._nodes = Nodes(seed, address_map, open_at)
        self._table = SlotTable(self._nodes.at(seed))
        self.node_of, self.tag_of = self._table.node_of, self._table.tag_of
        self._discovery = Discovery(
            self._nodes, self._table, listener, complete=lambda: self.complete, hidden=self._hidden
        )
        self._redirections = Redirections(
            address_map,
            settings.deadline,
            node_at=self._discovery.node_at,
            node_of=self._table.node_of,
            moved=self._discovery.moved,
            refused=self._discovery.refused,
            untracked=self._untracked,
        )
        self._discovery.use(list(ranges(slots, seed, address_map)))
        (self._nodes.first or self._table.owners[0]).start()

    # -- Client ----------------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether any node answers."""
        return any(node.up for node in self._table.owners)

    @property
    def complete(self) -> bool:
        """Whether each node that is in use answers."""
        return self.up and not self._away

    @property
    def _away(self) -> list[MultiplexedClient]:
        """Nodes in use that do not answer."""
        return [node for node in self._table.owners if node.started and not node.up]

    @property
    def topology(self) -> int:
        """Changes whenever slots have moved."""
        return self._table.topology

    @property
    def reason(self) -> str:
        """Why a node does not answer; empty if all in use do."""
        return f"{away[0].name}: {away[0].reason.replace(REPLICA, DEMOTED)}" if (away := self._away) else ""

    @property
    def last_answer(self) -> float:
        """When the first node that does not answer ceased to."""
        return min((node.last_answer for node in self._away), default=loop_time())

    def nodes(self) -> Sequence[Node]:
        """The primaries."""
        return self._table.owners

    def uses(self, node: Node) -> bool:
        """Whether it is one of the primaries, or one that a slot is moving to."""
        return node in self._nodes

    async def refresh(self) -> None:
        """Ask for the slots now.

        Raises:
            NotConnected: no node names them, though one did before: there may be nodes that are not known.
        """
        if not await self._discovery.ask() and self._table.known:
            raise NotConnected("no node names the slots")

    async def ping(self) -> None:
        """Ask for a key of the node's own: a PING is answered also by a node that serves none."""
        node = next((node for node in self._table.owners if node.up), self._table.owners[0])
        try:
            await node.call("GET", self._own_key(node) or "")
        except CommandRejected as problem:
            if problem.code != "NOPERM":  # not allowed to, but answered
                raise

    def call(self, *args: Argument) -> asyncio.Future[Any]:
        """Send one command, which has a key, to the node of that."""
        return self.node_of(key_of(args)).call(*args)

    def call_many(self, commands: Sequence[Command]) -> list[asyncio.Future[Any]]:
        """Send each command to its node, all at the same time. One without a key goes with a neighbour."""
        groups: dict[MultiplexedClient, list[int]] = {}
        keyless: list[int] = []
        for position, command in enumerate(commands):
            key = key_of(command)
            if key is None:
                keyless.append(position)
                continue
            group = groups.setdefault(self.node_of(key), [])
            group += [*keyless, position]
            keyless.clear()
        if keyless:
            groups[next(reversed(groups))] += keyless
        futures: dict[int, asyncio.Future[Any]] = {}
        for node, positions in groups.items():
            futures.update(zip(positions, node.call_many([commands[each] for each in positions]), strict=True))
        return [futures[position] for position in range(len(commands))]

    async def close(self) -> None:
        """End every task and connection."""
        self._nodes.closed = True
        await self._discovery.close()
        await self._nodes.close()

    # -- ClientListener, of the nodes ------------------------------------------------------------------

    def on_connected(self, node: Node) -> None:
        """The addresses that the cluster announces are right."""
        self._reached.add(node.name)
        self._listener.on_connected(node)
        if any(other.away and other.started for other in self._table.owners):
            self._discovery.ask_soon()

    def on_disconnected(self, node: Node, reason: str) -> None:
        """Look for the node that takes its place."""
        if node in self._table.owners:
            reached = node.name in self._reached or node is self._nodes.first or reason.startswith(_ANSWERED)
            hint = "" if reached else _NEVER_REACHED
            demoted = reason == REPLICA  # so another node has its slots by now, and the URL is right all the same
            self._listener.on_disconnected(node, "" if demoted else f"{node.name}{hint}: {reason}")
            self._discovery.ask_soon()

    def on_wrong_kind(self, node: Node, found: WrongKind) -> None:
        """It is no node of a cluster, or not any more."""
        if found.resp3 and not self.up:
            self._listener.on_wrong_kind(node, found)
        else:
            self.on_disconnected(node, str(found))

    # -- the rest --------------------------------------------------------------------------------------

    def _asked(self, node: Node, near: bool) -> str | None:
        """A node is asked for its role: see too whether the slots are where they were."""
        self._discovery.confirm_soon()
        return self._own_key(node) if near else None

    def _own_key(self, node: Node) -> str | None:
        tag = self.tag_of(node)
        return None if tag is None else system_server(tag)

    def _on_late(self) -> None:
        """Look for the node that takes its place. While none answers we may just be slow: an attempt will tell."""
        if self.up:
            self._discovery.ask_soon()

    def _untracked(self, key: bytes) -> None:
        """Keep no value of a key that another node answers for: if that connection is lost, it would not be dropped."""
        self._listener.on_push(self.node_of(key), [b"invalidate", [key]])

    async def _hidden(self) -> None:
        """Stop using a cluster of which no node says who has which slot, and try again later.

        A proxy that hides a cluster can be used as one server; but a node has named another one, so this is none.
        """
        node = self._table.owners[0]
        await node.close()
        node.reason = NO_SLOTS
        self._listener.on_disconnected(node, NO_SLOTS)
        await asyncio.sleep(LOOK_AGAIN)
        self._listener.on_wrong_kind(node, WrongKind("a cluster", 0.0))
