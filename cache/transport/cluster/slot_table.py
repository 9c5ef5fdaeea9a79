"""Which node of a cluster has which slot, which of them have moved lately, and what tells the nodes apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from ...slots import SLOTS, hash_slot, tag_of_slot
from ..client import Node
from ..multiplexer import MultiplexedClient
from .topology import Range

Move: TypeAlias = tuple[MultiplexedClient, MultiplexedClient]
"""From where, and to where."""


class SlotTable:
    """The slots, as CLUSTER SLOTS and MOVED say.

    What MOVED says holds at once, so that no value of the new node is served unless that is trusted. It holds until
    CLUSTER SLOTS says the same, because other nodes may not know yet, or until the new node is away or refuses.

    Args:
        first: has every slot until something else is known.

    Attributes:
        owners: the nodes that have slots, in the order of their first one.
        topology: changes whenever slots have moved.
        known: whether any node has said who has the slots.
        moved: slots that have moved since :meth:`take_moves`.
    """

    def __init__(self, first: MultiplexedClient) -> None:
        self._slots = [first] * SLOTS
        self.owners: tuple[MultiplexedClient, ...] = (first,)
        self.topology = 0
        self.known = False
        self.moved: set[int] = set()
        self._moves: set[Move] = set()
        self._redirected: dict[int, Move] = {}  # by MOVED, and not yet by CLUSTER SLOTS
        self._ids: dict[Node, str] = {}
        self._tags: dict[Node, str] = {}

    def node_of(self, key: str | bytes) -> MultiplexedClient:
        """The node that has the slot of ``key``."""
        return self._slots[hash_slot(key)]

    @property
    def agreed(self) -> bool:
        """Whether CLUSTER SLOTS says what MOVED has said."""
        return not self._redirected

    def tag_of(self, node: Node) -> str | None:
        """A hash tag of the node's first slot, and its id: the same in each process. None while either is not known."""
        if not self.known:
            return ""  # a proxy, which is used as one server
        if node not in self._tags and node in self._ids and node in self._slots:
            self._tags[node] = f"{{{tag_of_slot(self._slots.index(node))}}}:{self._ids[node]}"
        return self._tags.get(node)

    def use(self, view: Iterable[tuple[Range, MultiplexedClient]]) -> None:
        """Learn from a reply to CLUSTER SLOTS, with the nodes of its primaries."""
        slots = list(self._slots)
        for each, node in view:
            self.known = True
            slots[each.first : each.last + 1] = [node] * (each.last + 1 - each.first)
            if self._ids.get(node) != each.primary_id:
                self._ids[node] = each.primary_id
                self._tags.pop(node, None)
        confirmed: dict[int, Move] = {}
        for slot, (_, node) in list(self._redirected.items()):
            if slots[slot] is node:
                confirmed[slot] = self._redirected.pop(slot)
            elif node.away:
                del self._redirected[slot]
            else:
                slots[slot] = node
        moves = {slot: pair for slot, pair in enumerate(zip(self._slots, slots, strict=True)) if pair[0] is not pair[1]}
        self._slots, self.owners = slots, tuple(dict.fromkeys(slots))
        # Once more, now that the node from where they have moved has none left: that was a failover.
        moves |= {slot: move for slot, move in confirmed.items() if move[0] not in self.owners}
        for gone in self._ids.keys() - {*self.owners}:
            del self._ids[gone]
        self._note(moves)

    def move(self, slot: int, node: MultiplexedClient) -> None:
        """Learn from MOVED."""
        old = self._slots[slot]
        self._redirected[slot] = self._redirected.get(slot, (old,))[0], node
        if old is not node:
            self._slots[slot] = node
            self.owners = tuple(dict.fromkeys((*self.owners, node)))
            self._note({slot: (old, node)})

    def doubt(self, node: Node) -> None:
        """A node refuses commands for its slots: what MOVED has said of it counts no longer."""
        self._redirected = {slot: move for slot, move in self._redirected.items() if move[1] is not node}

    def take_moves(self) -> tuple[set[int], set[Move]]:
        """The slots that have moved since the last call, and from where to where."""
        taken = self.moved, self._moves
        self.moved, self._moves = set(), set()
        return taken

    def _note(self, moves: Mapping[int, Move]) -> None:
        if moves:
            self.moved |= moves.keys()
            self._moves.update(moves.values())
            self._tags.clear()
            self.topology += 1
