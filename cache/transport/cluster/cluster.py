"""A Redis cluster: one multiplexed connection to each primary in use, and the slots that say which one has a key.

A connection is opened when a key first needs it. The slots are asked for when a node says that a key has moved
(MOVED), when a connection is lost, and before the whole keyspace is looked at. While nodes are away, any node that
was ever seen may say who has taken their place; the others go on answering for their own slots. What a node rejects
because a slot moves or is moving (MOVED, ASK, TRYAGAIN) is sent again within the deadline of the call.

Source of the protocol: the Redis cluster specification.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextvars import Context
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

from ...background import BackgroundTasks, loop_time
from ...exceptions import WrongKind
from ...redis_url import Endpoint
from ...slots import SLOTS, hash_slot, tag_of_slot
from ..attempts import backoff
from ..client import Argument, ClientListener, ClusterListener, Command, Node, send_each
from ..connection import Redirect
from ..multiplexer import MultiplexedClient
from ..packing import key_of
from .redirections import Redirections
from .topology import Address, AddressMap, Range, ranges

_AGAIN: Final = 0.1  # seconds until the slots are asked for again while a node is away, and longer the longer it is
_ASKED: Final = 3  # nodes that are asked for the slots at a time
_NEVER_REACHED: Final = " (as the cluster announces it; reached elsewhere? set CACHE_CLUSTER_ADDRESS_MAP)"


class OpenNode(Protocol):
    """Makes the client of one node, which connects when it is first used."""

    def __call__(self, endpoint: Endpoint, listener: ClientListener, redirect: Redirect | None) -> MultiplexedClient:
        """See :class:`MultiplexedClient`."""


class ClusterClient:
    """The connections to a cluster.

    Args:
        endpoint: of the URL's node; the others have its credentials and TLS context.
        slots: what that node replied to CLUSTER SLOTS. If it is empty the node has every slot, until it says otherwise.
        listener: learns about the nodes that have slots.
        open_node: makes the client of a node.
        deadline: seconds a command may take.
        address_map: see ``topology.AddressMap``.
    """

    ordered: Final = False  # the commands for one key go to another node once its slot has moved
    only: Final = None

    def __init__(
        self,
        endpoint: Endpoint,
        slots: Any,
        listener: ClusterListener,
        *,
        open_node: OpenNode,
        deadline: float,
        address_map: AddressMap,
    ) -> None:
        self._endpoint, self._listener, self._open = endpoint, listener, open_node
        self.on_handshake, self.on_push = listener.on_handshake, listener.on_push
        self.on_reply_too_large = listener.on_reply_too_large
        self._address_map, self._closed = address_map, False
        self._tasks, self._closing = BackgroundTasks(), BackgroundTasks()
        self._redirections = Redirections(
            address_map,
            deadline,
            node_at=self._node,
            node_of=self.node_of,
            moved=self._moved,
            ask=self._ask_soon,
            untracked=self._untracked,
        )
        self._nodes: dict[Address, MultiplexedClient] = {}
        self._url_address = endpoint.host, endpoint.port
        self._known = {self._url_address}  # which may know the slots
        self._slots = [self._node(self._url_address)] * SLOTS
        self._owners: tuple[MultiplexedClient, ...] = (self._slots[0],)
        self._reached: set[str] = set()  # names of nodes that have answered
        self._tags: dict[Node, str] = {}
        self._ids: dict[Node, str] = {}
        self._asking: asyncio.Task[None] | None = None
        self.topology = 0
        self._use(list(ranges(slots, self._url_address, address_map)))
        first = self._nodes.get(self._url_address)
        (first if first in self._owners else self._owners[0]).start()

    # -- Client ----------------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether any node answers."""
        return any(node.up for node in self._owners)

    @property
    def complete(self) -> bool:
        """Whether each node that is in use answers."""
        return all(node.up for node in self._owners if node.started) and self.up

    @property
    def reason(self) -> str:
        """Why a node does not answer; empty if all in use do."""
        away = [f"{node.name}: {node.reason}" for node in self._owners if node.started and not node.up]
        return away[0] if away else ""

    @property
    def last_answer(self) -> float:
        """When the first node that does not answer ceased to."""
        return min((node.last_answer for node in self._owners if node.started and not node.up), default=loop_time())

    def node_of(self, key: str | bytes) -> MultiplexedClient:
        """The node that has the slot of ``key``."""
        return self._slots[hash_slot(key)]

    def nodes(self) -> Sequence[Node]:
        """The primaries."""
        return self._owners

    async def refresh(self) -> None:
        """Ask for the slots now."""
        await self._ask()

    def tag_of(self, node: Node) -> str:
        """A hash tag of the node's first slot (a new one may have none yet), and its id: the same in each process."""
        if node not in self._tags:
            tag = tag_of_slot(self._slots.index(node) if node in self._owners else 0)
            self._tags[node] = f"{{{tag}}}:{self._ids.get(node, '')}"
        return self._tags[node]

    def call(self, *args: Argument) -> asyncio.Future[Any]:
        """Send one command to the node of its key; one without a key to a node that answers."""
        key = key_of(args)
        if key is not None:
            return self._slots[hash_slot(key)].call(*args)
        return self._any().call(*args)

    def call_many(self, commands: Sequence[Command]) -> list[asyncio.Future[Any]]:
        """Send each command to its node, all at the same time. One without a key goes with the next that has one."""
        groups: dict[MultiplexedClient, list[int]] = {}
        keyless: list[int] = []
        for position, command in enumerate(commands):
            key = key_of(command)
            if key is None:
                keyless.append(position)
                continue
            group = groups.setdefault(self._slots[hash_slot(key)], [])
            group += [*keyless, position]
            keyless.clear()
        if keyless:
            groups.setdefault(next(reversed(groups), self._any()), []).extend(keyless)
        futures: dict[int, asyncio.Future[Any]] = {}
        for node, positions in groups.items():
            futures.update(zip(positions, node.call_many([commands[each] for each in positions]), strict=True))
        return [futures[position] for position in range(len(commands))]

    async def probe(self, commands: Sequence[Command]) -> list[Any]:
        """Replies and rejections."""
        return await send_each(self, commands)

    async def close(self) -> None:
        """End every task and connection."""
        self._closed = True
        await self._tasks.cancel()
        await asyncio.gather(*(node.close() for node in self._nodes.values()))
        await self._closing.ended(1.0)

    # -- ClientListener, of the nodes ------------------------------------------------------------------

    async def on_connected(self, node: Node) -> None:
        """The addresses that the cluster announces are right."""
        self._reached.add(node.name)
        await self._listener.on_connected(node)

    def on_disconnected(self, node: Node, reason: str) -> None:
        """Look for the node that takes its place."""
        if node in self._owners:
            hint = "" if node.name in self._reached or node is self._nodes.get(self._url_address) else _NEVER_REACHED
            self._listener.on_disconnected(node, f"{node.name}{hint}: {reason}")
            self._ask_soon()

    def on_wrong_kind(self, node: Node, found: WrongKind) -> None:
        """It is no node of a cluster, or not any more."""
        if found.resp3 and not self.up:
            self._listener.on_wrong_kind(node, found)
        else:
            self.on_disconnected(node, str(found))

    # -- slots -----------------------------------------------------------------------------------------

    def _any(self) -> MultiplexedClient:
        """A node that answers, if there is one."""
        return next((node for node in self._owners if node.up), self._owners[0])

    def _node(self, address: Address) -> MultiplexedClient:
        node = self._nodes.get(address)
        if node is None and self._closed:
            return self._owners[0]  # which is closed as well
        if node is None:
            endpoint = replace(self._endpoint, host=address[0], port=address[1])
            node = self._nodes[address] = self._open(endpoint, self, partial(self._redirections.redirect, address))
        return node

    def _ask_soon(self) -> None:
        if not self._closed and (self._asking is None or self._asking.done()):
            self._asking = self._tasks.spawn(self._ask_until_complete(), "cache-cluster-slots", Context())

    async def _ask_until_complete(self) -> None:
        began = loop_time()
        while True:
            await self._ask()
            await asyncio.sleep(backoff(_AGAIN, loop_time() - began))
            if self.complete:
                return

    async def _ask(self) -> None:
        """Use what most of the nodes that answer agree with: the reply that names most primaries that answer."""
        up = [node for node in self._nodes.values() if node.up]
        asked = random.sample(up, min(_ASKED, len(up)))
        replies = await asyncio.gather(*(node.call("CLUSTER", "SLOTS") for node in asked), return_exceptions=True)
        if self._closed:
            return
        addresses = {node: address for address, node in self._nodes.items()}
        views = [
            list(ranges(reply, addresses[node], self._address_map))
            for node, reply in zip(asked, replies, strict=True)
            if node in addresses and isinstance(reply, list)
        ]
        if not any(views):  # none answers, or those that do are no part of the cluster any more
            for address in self._known:
                if not (node := self._node(address)).started:
                    node.start()
            return
        self._use(max(views, key=self._answering))

    def _answering(self, view: list[Range]) -> int:
        """How many slots have a primary that answers, or that was not needed yet."""
        nodes = {each: self._nodes.get(each.primary) for each in view}
        return sum(
            each.last - each.first + 1 for each, node in nodes.items() if node is None or node.up or not node.started
        )

    def _use(self, view: list[Range]) -> None:
        if not view:
            return
        slots, in_use = list(self._slots), {node for node in self._owners if node.started}
        for each in view:
            slots[each.first : each.last + 1] = [self._node(each.primary)] * (each.last + 1 - each.first)
            if self._ids.get(node := self._node(each.primary)) != each.primary_id:
                self._ids[node] = each.primary_id
                self._tags.pop(node, None)
        self._known = {address for each in view for address in (each.primary, *each.replicas)} | {self._url_address}
        moved = {slot for slot, (old, new) in enumerate(zip(self._slots, slots, strict=True)) if old is not new}
        moves = {(self._slots[slot], slots[slot]) for slot in moved}
        if moved:
            for old, new in moves:
                if old in in_use and not new.started:
                    new.start()
            self._slots, self.topology = slots, self.topology + 1
            self._owners = tuple(dict.fromkeys(slots))
            self._tags.clear()
        unused = [address for address, node in self._nodes.items() if node not in self._owners]
        for node in map(self._nodes.pop, unused):
            self._ids.pop(node, None)
            self._tags.pop(node, None)
            self._closing.spawn(node.close(), "cache-disconnect")
        if moved or unused:
            self._listener.on_moved(lambda key: hash_slot(key) in moved, moves)

    def _untracked(self, key: bytes) -> None:
        """A key is read from a node that does not have its slot here: the loss of that one would not be noticed."""
        self._listener.on_push(self.node_of(key), [b"invalidate", [key]])

    def _moved(self, slot: int, node: MultiplexedClient) -> None:
        """A node says that another one has this slot."""
        if not self._ids:  # no node says who has the slots: MOVED alone tells
            self._slots[slot] = node
            self._owners = tuple(dict.fromkeys(self._slots))
        self._ask_soon()
