"""Sends elsewhere, or again, what a node rejects because of its slots, within the deadline of the call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ...exceptions import CommandRejected
from ...slots import SLOTS
from ..connection import Sent, expire
from ..multiplexer import MultiplexedClient
from ..packing import key_of, pack, unpack
from .topology import UNKNOWN, Address, AddressMap, reach

_HOPS: Final = 3  # redirections of one command that are followed at once; further ones, and TRYAGAIN, after a pause
_PAUSE: Final = 0.005  # seconds
_ASKING: Final = pack((b"ASKING",))


class Redirections:
    """Follows MOVED, ASK and TRYAGAIN.

    Args:
        address_map: see ``topology.AddressMap``.
        deadline: seconds a command may take, redirections included.
        node_at: returns the client for an address.
        node_of: returns the client for a key.
        moved: called with a slot, and the node that is said to have it; returns whether to follow.
        refused: called with the address of a node that does not serve a slot.
        untracked: called with each key whose command is sent to another node than its own.
    """

    def __init__(
        self,
        address_map: AddressMap,
        deadline: float,
        *,
        node_at: Callable[[Address], MultiplexedClient],
        node_of: Callable[[bytes], MultiplexedClient],
        moved: Callable[[int, MultiplexedClient], bool],
        refused: Callable[[Address], None],
        untracked: Callable[[bytes], None],
    ) -> None:
        self._address_map, self._deadline = address_map, deadline
        self._node_at, self._node_of = node_at, node_of
        self._moved, self._refused, self._untracked = moved, refused, untracked
        self._hops: dict[asyncio.Future[Any], int] = {}

    def redirect(self, asked: Address, sent: Sent, rejection: CommandRejected) -> bool:
        """Send again what the node ``asked`` rejects. Returns whether that is done."""
        future, called, _ = sent
        loop, code = asyncio.get_running_loop(), rejection.code
        if code == "CLUSTERDOWN":
            self._refused(asked)
            return False
        if code not in ("MOVED", "ASK", "TRYAGAIN"):
            return False
        if loop.time() >= called + self._deadline:
            expire(future)
            return True
        try:
            again = self._elsewhere(asked, sent, rejection)
        except ValueError:
            return False  # it names no place, or none that may be used
        if self._count(future) <= _HOPS and code != "TRYAGAIN":
            again()
        else:
            loop.call_later(_PAUSE, again)
        return True

    def _elsewhere(self, asked: Address, sent: Sent, rejection: CommandRejected) -> Callable[[], None]:
        if rejection.code == "TRYAGAIN":
            return partial(self._to_its_node, sent)
        _, slot, place = str(rejection).split(" ")[:3]
        if not 0 <= int(slot) < SLOTS:
            raise ValueError
        host, _, port = place.rpartition(":")
        if host == UNKNOWN:
            self._refused(asked)  # asks for the slots, whose reply has an address too
            return partial(self._to_its_node, sent)
        if (there := reach(host, int(port), asked, self._address_map)) == asked:
            raise ValueError  # what the address map or the nodes say of their addresses is wrong
        key = key_of(unpack(sent[2]))
        if key is not None:
            self._untracked(key)
        node = self._node_at(there)
        if rejection.code == "MOVED":
            if not self._moved(int(slot), node):
                raise ValueError
            return partial(node.dispatch, [sent])
        asking: Sent = asyncio.get_running_loop().create_future(), sent[1], _ASKING
        return partial(node.dispatch, [asking, sent])

    def _to_its_node(self, sent: Sent) -> None:
        key = key_of(unpack(sent[2]))
        if key is not None:
            self._node_of(key).dispatch([sent])

    def _count(self, future: asyncio.Future[Any]) -> int:
        if future not in self._hops:
            future.add_done_callback(self._hops.pop)
        self._hops[future] = self._hops.get(future, 0) + 1
        return self._hops[future]
