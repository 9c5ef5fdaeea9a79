"""The clients of a cluster's nodes, by address: opened when first needed, and asked who has which slot."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection
from typing import Final

from ...background import BackgroundTasks, loop_time
from ..multiplexer import MultiplexedClient
from .topology import Address, AddressMap, Range, ranges

ASKED: Final = 3  # nodes that are asked for the slots at a time
_ON_ITS_WAY: Final = 0.5  # seconds after a redirection for which a node without slots is kept: one is moving there


class Nodes:
    """The clients of the nodes.

    Args:
        seed: address of the URL's node.
        address_map: see ``topology.AddressMap``.
        open_node: makes the client for an address.
    """

    def __init__(
        self, seed: Address, address_map: AddressMap, open_node: Callable[[Address], MultiplexedClient]
    ) -> None:
        self._seed, self._address_map, self._open = seed, address_map, open_node
        self._clients = {seed: open_node(seed)}
        self._known = {seed}  # addresses where the slots may be known
        self._redirected: dict[Address, float] = {}  # loop time of the last redirection there
        self._closing = BackgroundTasks()
        self.closed = False

    @property
    def first(self) -> MultiplexedClient | None:
        """The URL's node, while it is used."""
        return self._clients.get(self._seed)

    def at(self, address: Address) -> MultiplexedClient:
        """The client for an address, made if there is none."""
        if address not in self._clients:
            if self.closed:
                return next(iter(self._clients.values()))  # which is closed as well
            self._clients[address] = self._open(address)
        return self._clients[address]

    def redirected_to(self, address: Address) -> MultiplexedClient:
        """The client for an address that another node has named."""
        self._redirected[address] = loop_time()
        return self.at(address)

    def beside(self, owners: Collection[MultiplexedClient]) -> bool:
        """Whether there are clients of other nodes."""
        return any(node not in owners for node in self._clients.values())

    def __contains__(self, node: object) -> bool:
        return node in self._clients.values()

    async def views(self, count: int = ASKED) -> list[list[Range]]:
        """What so many of the nodes that answer reply to CLUSTER SLOTS, where it names any."""
        up = [(address, node) for address, node in self._clients.items() if node.up]
        asked = random.sample(up, min(count, len(up)))
        replies = await asyncio.gather(*(node.call("CLUSTER", "SLOTS") for _, node in asked), return_exceptions=True)
        views = [
            list(ranges(reply, address, self._address_map))
            for (address, node), reply in zip(asked, replies, strict=True)
            if self._clients.get(address) is node
        ]
        return [view for view in views if view]

    def answering(self, view: list[Range]) -> int:
        """How many slots of a view have a primary that answers, or that was not needed yet."""
        nodes = {each: self._clients.get(each.primary) for each in view}
        return sum(
            each.last - each.first + 1 for each, node in nodes.items() if node is None or node.up or not node.started
        )

    def start_all(self) -> None:
        """Connect wherever the slots may be known."""
        for address in self._known:
            if not (node := self.at(address)).started:
                node.start()

    def keep(self, owners: Collection[MultiplexedClient], view: list[Range]) -> bool:
        """Close the clients of other nodes, except where a slot may be on its way. Returns whether any was closed.

        The addresses of the view are asked when no node in use answers.
        """
        self._known = {address for each in view for address in (each.primary, *each.replicas)} | {self._seed}
        late = loop_time() - _ON_ITS_WAY
        self._redirected = {address: when for address, when in self._redirected.items() if when > late}
        kept = self._redirected.keys()
        unused = [address for address, node in self._clients.items() if node not in owners and address not in kept]
        for address in unused:
            self._closing.spawn(self._clients.pop(address).close(), "cache-disconnect")
        return bool(unused)

    async def close(self) -> None:
        """End every connection."""
        self.closed = True
        await asyncio.gather(*(node.close() for node in self._clients.values()))
        await self._closing.ended(1.0)
