"""Detects restart, restore or failover: a server whose values may be older than what it acknowledged.

A server that was restarted, restored from a dump, or replaced by its replica may have lost invalidations that it had
acknowledged. Each run of a server has an id (``run_id``) and each history of its data another (``master_replid``);
together they are its epoch. The epoch under which the values were last known to be right is stored in
``system:server``, the mark, and therefore in every dump and replica. A connection asks for epoch and mark in its
handshake, before any value is served over it, again when the server reports that all of its data may have changed, and
every half minute. If they differ, the values of all users are quarantined until the owner of the source of truth has
invalidated again what changed lately, or, if it cannot, until all that this layer wrote for users has been deleted.
One process does that for all, under a lease; the others wait for its mark. Beside that each delivers again what the
server before acknowledged last (``delivered``).

A server without a mark is accepted if it is empty. If the mark may not be read it counts as missing; if the epoch may
not be read the server is accepted. A server without RESP3 is accepted too. In a cluster each primary has an epoch and
a mark of its own.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

from .. import keys
from ..background import loop_time
from ..exceptions import CommandRejected, TransportError, rejected_with
from ..transport.client import Command, Node, send_all, send_each
from ..transport.commands import Transport
from ..transport.packing import info_of
from .pending import PendingQueue
from .revalidation_lease import REVALIDATE_TIMEOUT, RevalidationLease

logger = logging.getLogger("cache")
Revalidate = Callable[[], Awaitable[bool]]
"""Invalidates again what changed lately. Returns whether that covers everything; raises if it cannot say now."""
_GET_EPOCH: Final = (("INFO", "server"), ("INFO", "replication"))
CHECK_EVERY: Final = 28.0
"""Seconds between two checks of the mark: less than 30, so that an idle connection needs no ping."""
RETRY_EVERY: Final = 1.0  # seconds between two attempts to end a quarantine
_UNTRUSTED: Final = "values of another server came along"  # a mark that equals no epoch: no process trusts the server
_ATTEMPTS: Final = 3  # in a row, if a reply does not come in time


class ServerEpoch:
    """Compares the epoch of one server with its mark, and quarantines the users' values on it while they differ.

    Args:
        node: the server.
        transport: of the cache.
        pending: of the cache.
        revalidate: returns what is called to end a quarantine, if anything is (:meth:`cache.RedisCache.recall_with`).

    Attributes:
        checked_at: loop time of the last check of the mark that found nothing.
        not_before: loop time of the next attempt to end a quarantine.
        changes: notifications so far that the mark or all data may have changed.
    """

    def __init__(
        self, node: Node, transport: Transport, pending: PendingQueue, revalidate: Callable[[], Revalidate | None]
    ) -> None:
        self._node = node
        self._transport = transport
        self._pending = pending
        self._revalidate = revalidate
        self._epoch = ""  # empty if it may not be read
        self._lease = RevalidationLease(node, transport, lambda: keys.lease(self.mark_key))
        self.checked_at = self.not_before = -CHECK_EVERY
        self._mark = ""  # as last read; empty again when the server reports that it changed
        self._tentative = 0  # sequence number of a quarantine that ends if the mark is missing: the server was emptied
        self._since = 0.0  # loop time at which the quarantine began
        self.changes = 0
        self._checking: asyncio.Task[None] | None = None
        self._deleting = False  # whether the deletion of its values, which could not be revalidated, is pending
        self._overwrite = False  # whether the mark has to be replaced, because it calls values right that are not

    @property
    def mark_key(self) -> str:
        """Where the mark is."""
        client = self._transport.client
        return keys.system_server("" if client is None else client.tag_of(self._node) or "")

    @property
    def handshake(self) -> tuple[Command, ...]:
        """What a new connection asks. Each command may be rejected."""
        return *_GET_EPOCH, ("GET", self.mark_key), ("DBSIZE",)

    def on_handshake(self, replies: list[Any]) -> None:
        """Begin with a new connection. ``replies``: to :attr:`handshake`."""
        epoch, mark = _epoch_and_mark(replies)
        self._see(epoch, replies)
        self._mark = ""
        self.changes += 1
        self.checked_at = self.not_before = -CHECK_EVERY
        empty = replies[-1] == 0
        if self._epoch and mark != self._epoch and (mark or not empty):
            self.quarantine()

    def is_due(self, *, early: bool = False) -> bool:
        """Whether the mark is to be checked: ``early``, if half of the time until then is over."""
        return bool(self._epoch) and loop_time() - self.checked_at >= CHECK_EVERY / (2 if early else 1)

    def check(self, *, early: bool = False) -> None:
        """Do in the background what is due. Call it a few times a second."""
        client = self._transport.client
        if client is None or not self._node.up or client.tag_of(self._node) is None:
            return  # not connected; or where its mark is, is not known yet
        due = self._quarantined or self.is_due(early=early)
        if due and loop_time() >= self.not_before and (self._checking is None or self._checking.done()):
            self._checking = asyncio.create_task(self._run(), name="cache-server-epoch")

    def on_change(self) -> None:
        """The mark was evicted or overwritten; it has to be restored before the next dump."""
        self.changes += 1
        self._mark = ""
        self.checked_at = -CHECK_EVERY
        self.check_now()  # another process may have restored the mark, for which this one waits

    def on_flush(self) -> None:
        """The server was flushed, or has loaded another server's data."""
        if self._epoch and not self._quarantined:
            self.quarantine()
            self._tentative = self._quarantined
        self.on_change()

    def check_now(self) -> None:
        """As :meth:`check`, also if an attempt has just failed: what it waited for may have happened."""
        self.not_before = loop_time()
        self.check()

    async def close(self) -> None:
        """Stop checking. A quarantine stays in force while the server is used."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait({self._checking})

    def quarantine(self) -> None:
        """Serve no user's value of this server until it is known what is right."""
        if not self._quarantined:
            self._since = loop_time()
        self._pending.quarantine(self._node, self._includes)

    @property
    def suspect(self) -> bool:
        """Whether its values may be old."""
        return bool(self._quarantined) or self._deleting

    def distrust(self) -> None:
        """Slots have moved here from a server whose values may be old: quarantine this one too, in every process."""
        self._overwrite = True
        self.quarantine()

    def forget(self) -> None:
        """The server is not used any more."""
        self._pending.release(self._node)
        if self._checking is not None:
            self._checking.cancel()

    @property
    def _quarantined(self) -> int:
        return self._pending.quarantined(self._node)

    def _see(self, epoch: str, replies: list[Any]) -> None:
        if self._epoch not in ("", epoch):
            self._pending.deliver_again(self._includes, float(info_of(replies[0]).get("uptime_in_seconds", "inf")))
        self._epoch = epoch

    def _includes(self, key: str) -> bool:
        client = self._transport.client
        return client is None or client.node_of(key) is self._node

    async def _run(self) -> None:
        changes = self.changes
        verified = False
        for _ in range(_ATTEMPTS):
            try:
                verified = await self._verify()
            except CommandRejected:
                pass  # tried again after RETRY_EVERY
            except TransportError:
                continue  # late, perhaps because our own loop was blocked
            break
        if not verified:
            self.not_before = loop_time() + RETRY_EVERY * random.uniform(1.0, 2.0)
        elif changes == self.changes:  # otherwise something changed meanwhile, and is checked as well
            self.checked_at = loop_time()

    async def _verify(self) -> bool:
        """End a quarantine and restore the mark. Returns whether everything is done; raises TransportError."""
        if self._overwrite and self._epoch:
            await self._set_mark(_UNTRUSTED)
        self._overwrite = False
        mark = await self._read_mark() if self._epoch else ""
        if quarantine := self._quarantined:
            if not await self._nothing_old(quarantine, mark):
                return False
            self._pending.release(self._node, quarantine)
            mark = await self._read_mark() if self._epoch else ""
        # Other processes trust a server that has the mark: deliver first. One of the pending invalidations may never be
        # delivered: another process recovers the server then.
        if self._quarantined or any(self._pending.invalidations):
            await (self._lease.renew() if loop_time() - self._since < REVALIDATE_TIMEOUT else self._lease.release())
            return False
        if self._epoch and mark != self._epoch:
            await self._set_mark(self._epoch)
        self._deleting = False
        await self._lease.release()
        return True

    async def _set_mark(self, mark: str) -> None:
        try:  # read it too, so that the server pushes its eviction
            await send_all(self._node, (("SET", self.mark_key, mark), ("GET", self.mark_key)))
        except CommandRejected as problem:
            if problem.code != "NOPERM":
                raise

    async def _read_mark(self) -> str:
        """Return the mark. Quarantines a server with a new epoch or an unknown mark; raises TransportError."""
        changes, replies = self.changes, await send_each(self._node, (*_GET_EPOCH, ("GET", self.mark_key)))
        for reply in replies:
            if isinstance(reply, Exception) and not rejected_with(reply, "NOPERM", "WRONGTYPE"):
                raise reply
        epoch, mark = _epoch_and_mark(replies)
        if epoch != self._epoch or mark not in (epoch, self._mark):  # also if it is gone and no push says so: SWAPDB
            self.quarantine()
        self._see(epoch, replies)
        self._mark = mark if changes == self.changes else ""
        return mark

    async def _nothing_old(self, quarantine: int, mark: str) -> bool:
        """Make sure that no value is older than an acknowledged invalidation; raises TransportError."""
        if self._epoch:
            if mark == self._epoch or (quarantine == self._tentative and not mark):
                return True  # another process has verified the server; or it was flushed and is empty
            if not await self._lease.claim():
                return False
            if await self._read_mark() == self._epoch:
                return True  # the previous holder of the lease was done between our look and our claim
        if (revalidate := self._revalidate()) is not None:
            try:
                if await self._lease.hold(revalidate()):
                    return True
            except Exception as problem:  # the source of truth is away, or the callable is defective
                if loop_time() - self._since < REVALIDATE_TIMEOUT:
                    await self._lease.release()  # another process may reach it
                    return False
                logger.error("revalidation failed (%s): all users' values are deleted", type(problem).__name__)
        self._deleting = True
        self._pending.add_pattern(f"{keys.USERS}*", None, own=True, where=self._includes)
        return True


def _epoch_and_mark(replies: list[Any]) -> tuple[str, str]:
    """Read the replies to ``_GET_EPOCH`` and to a GET of the mark. What may not be read, or is no text, is empty."""
    server, replication, mark = replies[:3]
    run, history = info_of(server).get("run_id"), info_of(replication).get("master_replid")
    mark = mark.decode(errors="replace") if isinstance(mark, bytes) else ""
    return f"{run}:{history}" if run and history else "", mark
