"""Keeps the table of slots right: asks the nodes for it, and believes MOVED at once.

The slots are asked for when a node says that a key has moved (MOVED), when a connection is lost or slow to be made, and
before the whole keyspace is looked at. While nodes are away, any node that was ever seen may say who has taken their
place. While commands are sent, some node is asked once a second: one that the others have given up for lost, but that
does not know, says no MOVED, and neither does anything say it of a key that only a near cache is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final

from ...background import BackgroundTasks, loop_time
from ...slots import hash_slot
from ..attempts import backoff
from ..client import ClusterListener
from ..multiplexer import MultiplexedClient
from .nodes import Nodes
from .slot_table import SlotTable
from .topology import Address, Range, owned

_AGAIN: Final = 0.1  # seconds until the slots are asked for again while a node is away, and longer the longer it is
CONFIRM_EVERY: Final = 1.0  # seconds


class Discovery:
    """Asks for the slots.

    Args:
        nodes: to ask, and to make clients for.
        table: to keep right.
        complete: whether each node in use answers.
        listener: learns which keys have moved.
        hidden: run if a node sends us elsewhere, and none says who has which slot.
    """

    def __init__(
        self,
        nodes: Nodes,
        table: SlotTable,
        listener: ClusterListener,
        *,
        complete: Callable[[], bool],
        hidden: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._nodes, self._table, self._listener = nodes, table, listener
        self._complete, self._hidden = complete, hidden
        self._tasks = BackgroundTasks()
        self._asking: asyncio.Task[None] | None = None
        self._refusals = False  # since the slots were last asked for
        self._owned = owned(())  # as the last view says that was used
        self._confirm_at = loop_time() + CONFIRM_EVERY

    def ask_soon(self) -> None:
        """Ask in the background, and again until each node in use has slots and serves them, as each MOVED has said."""
        self._begin(self._ask_until_complete)

    def confirm_soon(self) -> None:
        """Ask in the background whether the slots are where they were, unless that was just done."""
        if (now := loop_time()) >= self._confirm_at:
            self._confirm_at = now + CONFIRM_EVERY
            self._begin(self._confirm)

    async def ask(self) -> bool:
        """Use the reply that names most primaries that answer; of several, what most of those asked agree with.

        Returns whether there is one.
        """
        views = await self._nodes.views()
        if self._nodes.closed:
            return False
        if views:
            said = [owned(view) for view in views]
            votes = [
                (self._nodes.answering(view), said.count(it), it == self._owned)
                for view, it in zip(views, said, strict=True)
            ]
            self.use(views[votes.index(max(votes))])
        else:  # none answers, or those that do are no part of the cluster any more
            self._nodes.start_all()
        return bool(views)

    def use(self, view: list[Range]) -> None:
        """Learn from a reply to CLUSTER SLOTS."""
        if view:
            self._owned = owned(view)
            self._table.use((each, self._nodes.at(each.primary)) for each in view)
            self._report(unused=self._nodes.keep(self._table.owners, view))
            if self._nodes.beside(self._table.owners):
                self.ask_soon()

    def node_at(self, address: Address) -> MultiplexedClient:
        """The client for an address that a node has named. One that gets no slot is closed later."""
        node = self._nodes.redirected_to(address)
        if self._table.known and node not in self._table.owners:
            self.ask_soon()
        return node

    def moved(self, slot: int, node: MultiplexedClient) -> bool:
        """Learn from MOVED. Returns whether to follow: not where no node has said who has which slot."""
        if not self._table.known:
            self._begin(self._ask_once)
            return False
        if not self._nodes.closed:
            if not self._table.moved:
                asyncio.get_running_loop().call_soon(self._report)  # once for all that is read at the same time
            self._table.move(slot, node)
        self.ask_soon()
        return True

    def refused(self, address: Address) -> None:
        """A node does not serve a slot."""
        self._refusals = True
        self._table.doubt(self._nodes.at(address))
        self.ask_soon()

    async def close(self) -> None:
        """Ask no more."""
        await self._tasks.cancel()

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if not self._nodes.closed and (self._asking is None or self._asking.done()):
            self._asking = self._tasks.spawn(work(), "cache-cluster-slots", Context())

    async def _ask_until_complete(self) -> None:
        began = loop_time()
        while True:
            self._refusals = False
            await self.ask()
            await asyncio.sleep(backoff(_AGAIN, loop_time() - began))
            unsettled = self._refusals or not self._table.agreed or self._nodes.beside(self._table.owners)
            if self._complete() and not unsettled:
                return

    async def _confirm(self) -> None:
        views = await self._nodes.views(1)
        if views and owned(views[0]) != self._owned and self._table.known:
            await self._ask_until_complete()

    async def _ask_once(self) -> None:
        if not await self.ask():
            await self._hidden()

    def _report(self, *, unused: bool = False) -> None:
        """Report what has moved, and connect to the nodes that have taken the place of others in use."""
        moved, moves = self._table.take_moves()
        if self._nodes.closed:
            return
        for old, new in moves:
            if old.started and not new.started:
                new.start()
        if moved or unused:
            self._listener.on_moved(lambda key: hash_slot(key) in moved, moves)
