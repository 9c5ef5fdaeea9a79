"""The servers in use: which values read from them may be kept, and served.

A cache has one server, or several in a cluster, and each may be replaced by another at any time. Of each it is known
whether its values are right (``server_epoch``), and whether it reports what changes of them: client-side caching as in
the Redis documentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, Final

from ..exceptions import TransportError
from ..transport.client import Command, Node
from ..transport.commands import Transport
from .near_cache import NearCache
from .pending import PendingQueue
from .server_epoch import Revalidate, ServerEpoch
from .waiters import Waiters

_TRACKING: Final = ("CLIENT", "TRACKING", "ON")
# Not NOLOOP, although we know our own writes: the server would not report what our commands evict, expire early or
# fill, and would stop tracking those keys.


class Servers:
    """Drops from this process what a server reports as changed, and what it may have failed to report.

    Args:
        transport, pending, near, waiters: of the cache.

    Attributes:
        epochs: for each server in use, whether it is the one whose values were known to be right.
        revalidate: see :meth:`cache.RedisCache.recall_with`.
    """

    def __init__(self, transport: Transport, pending: PendingQueue, near: NearCache, waiters: Waiters) -> None:
        self._transport, self._pending, self._near, self._waiters = transport, pending, near, waiters
        self.epochs: dict[Node, ServerEpoch] = {}
        self.revalidate: Revalidate | None = None
        self._tracking: set[Node] = set()  # which report changes of what is read over their last connection

    def tracks(self, key: str) -> bool:
        """Whether changes of ``key`` are reported, once it was read."""
        client = self._transport.client
        return client is not None and (node := client.node_of(key)).up and node in self._tracking

    @property
    def silent(self) -> bool:
        """Whether a server in use reports no changes of what is read from it."""
        return not self.epochs.keys() <= self._tracking

    def handshake(self, node: Node) -> tuple[Command, ...]:
        """What a new connection asks. Each command may be rejected."""
        return *self._epoch(node).handshake, _TRACKING

    def on_handshake(self, node: Node, replies: list[Any]) -> None:
        """Begin with a new connection. ``replies``: to :meth:`handshake`."""
        *found, tracking = replies
        self.epochs[node] = self._epoch(node)
        self.epochs[node].on_handshake(found)
        if isinstance(tracking, TransportError):
            self._tracking.discard(node)  # no right to it: no near cache, and waiters poll
        else:
            self._tracking.add(node)

    def on_connected(self, node: Node) -> None:
        """The server may be used."""
        if node in self.epochs:
            self.forget_read_over(node)  # callers that wait look again
            self.epochs[node].check()

    def forget_read_over(self, node: Node) -> None:
        """Changes of what was read from this server may have gone unreported."""
        client = self._transport.client
        if client is None or client is node:
            self._near.drop_all()
        else:
            self._near.drop_where(lambda key: client.node_of(key) is node)
        self._waiters.changed(None)

    def on_moved(self, includes: Callable[[str], bool], moves: Collection[tuple[Node, Node]]) -> None:
        """Keys have another server: forget what was read from the one before, and servers that have no keys left."""
        distrusted = {new for old, new in moves if old in self.epochs and self.epochs[old].suspect}
        self._near.drop_where(includes)
        self._waiters.changed(None)
        client = self._transport.client
        if client is not None and not {old for old, _ in moves} <= {*client.nodes()}:
            self._pending.deliver_again(includes, math.inf)  # a failover: what gives one slot away brings its keys
        for gone in [node for node in self.epochs if client is None or not client.uses(node)]:
            self.epochs.pop(gone).forget()
        self._tracking &= self.epochs.keys()
        for epoch in self.epochs.values():
            epoch.on_change()  # its mark may have another name
        for node in distrusted:
            if client is not None and client.uses(node):
                self.epochs[node] = self._epoch(node)
                self.epochs[node].distrust()

    def on_push(self, node: Node, push: list[Any]) -> None:
        """Apply what a server reports."""
        if push[0] != b"invalidate" or (epoch := self.epochs.get(node)) is None:
            return  # of another kind, or of a server that is not used any more
        names: list[bytes] | None = push[1]
        if names is None:  # FLUSHALL or FLUSHDB
            self.forget_read_over(node)
            epoch.on_flush()
            return
        if epoch.mark_key.encode() in names:
            self.forget_read_over(node)  # other data may have taken the place of what it tracked (SWAPDB)
            epoch.on_change()
        self._near.drop_many(name.decode(errors="surrogateescape") for name in names)
        self._waiters.changed(names)

    def check(self) -> None:
        """Do in the background what is due. Call it a few times a second."""
        # At the same time: a cluster is asked for its slots too, once for all, where commands are sent after a pause.
        any_due = any(epoch.is_due() for epoch in self.epochs.values())
        for epoch in self.epochs.values():
            epoch.check(early=any_due)

    def on_delivered(self) -> None:
        """A scan has delivered what was pending."""
        for epoch in self.epochs.values():
            epoch.check_now()  # the mark may have waited for that

    def forget(self) -> None:
        """None is used any more."""
        for epoch in self.epochs.values():
            epoch.forget()
        self.epochs.clear()
        self._tracking.clear()
        self._near.drop_all()
        self._waiters.changed(None)

    async def close(self) -> None:
        """As :meth:`forget`, and wait until nothing is done in the background."""
        epochs = list(self.epochs.values())
        self.forget()
        for epoch in epochs:
            await epoch.close()

    def _epoch(self, node: Node) -> ServerEpoch:
        known = self.epochs.get(node)
        return known or ServerEpoch(node, self._transport, self._pending, lambda: self.revalidate)
