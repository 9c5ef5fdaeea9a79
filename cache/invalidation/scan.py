"""Scans the keyspace for what a pattern matches and deletes it, without blocking the server.

SCAN in pages and UNLINK in batches: not KEYS, which answers no other client meanwhile, and not one giant DEL. While
one page is processed the next is requested, so that server and process work at the same time.

Leases are deleted before values, in a scan of their own. A loader with a lease could otherwise fill a key whose place
the scan has passed; once the leases are gone no older load can fill, and what was filled earlier is found by the scan
for values. Last good values (``stale:{...}``) are deleted with the leases. A pattern that matches most keys deletes
values before either scan: both then scan a nearly empty server.

Each step has the usual deadline. A scan that has begun retries a step, one deadline later each time, so that one pause
of the server does not end a scan over a million keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Final, TypeVar

from .. import keys
from ..background import BackgroundTasks
from ..coherence.glob import matches, plain_start
from ..exceptions import CacheUnavailable, CommandRejected, ConnectionLost, TransportError, rejected_with
from ..transport.client import Node
from ..transport.commands import Transport

T = TypeVar("T")
_PAGE: Final = 1000
_MATCHES_MOST: Final = 0.4  # share of a page from which on values are deleted before leases, and once more after
_BATCH: Final = 500
_ATTEMPTS: Final = 3
SPECIFIC: Final = frozenset(("NOPERM", "WRONGTYPE", "ERR", "CROSSSLOT"))
"""Error codes that concern one command. With the others (READONLY, LOADING, OOM, ...) the rest would fail too."""


Select = Callable[[list[str], bool], Awaitable[list[str]]]
"""Chooses which keys to delete. The flag: whether they were found; otherwise only a lease or last good value was."""
Remove = Callable[[list[str], bool], Awaitable[None]]
"""Deletes keys. The flag: whether these are the keys themselves, not their leases and last good values."""


async def delete_matching(
    transport: Transport, pattern: str, select: Select, remove: Remove, *, size: int = _PAGE
) -> None:
    """Delete every key that matches ``pattern`` and is selected, with its lease and last good value.

    Args:
        transport: sends the commands.
        pattern: the Redis pattern.
        select: chooses among the keys of a page.
        remove: deletes what was chosen.
        size: see :func:`pages`.

    Raises:
        TransportError: Redis gave no usable reply; what was deleted by then stays deleted.
    """
    async with aclosing(pages(transport, pattern, size)) as values:
        async for page in values:
            await remove(await select(page, True), True)
            if len(page) < _MATCHES_MOST * size:
                break
    # Only the literal prefix: nothing can be put after a pattern with an unclosed set.
    # [ls]: the first letter of lease and stale, with which Redis discards nearly every other key at once.
    guards = f"[ls]*[:{{]{keys.escape(plain_start(pattern))}*"
    async for page in pages(transport, guards, size):
        guarded = {name for key in page if (name := keys.guarded_by(key)) and matches(pattern, name)}
        await remove(guards_of(await select(list(guarded), False)), False)
    async for page in pages(transport, pattern, size):
        found = await select(page, True)
        await remove(guards_of(found), False)
        await remove(found, True)


async def pages(transport: Transport, pattern: str, size: int) -> AsyncGenerator[list[str], None]:
    """Yield the matching keys page by page, the next one requested already; a page may be empty.

    Args:
        transport: sends the commands.
        pattern: the Redis pattern.
        size: keys the server examines for a page, about; it answers no other command meanwhile.

    Raises:
        TransportError: Redis gave no usable reply.
    """
    nodes, topology = await transport.nodes()
    problem: TransportError | None = None
    ahead = BackgroundTasks()
    for node in nodes:
        page = partial(_page, transport, node, pattern, size)
        request: asyncio.Task[tuple[int, list[bytes]]] | None
        request = ahead.spawn(page(0), "cache-scan")  # a scan that has not begun is not retried
        try:
            while request is not None:
                cursor, found = await request
                again = partial(page, cursor)
                request = ahead.spawn(retried(transport, again), "cache-scan") if cursor else None
                yield [key.decode(errors="surrogateescape") for key in found]
        except TransportError as failure:
            problem = failure  # the other nodes of a cluster still delete what they have
        finally:
            if request is not None:
                request.cancel()
    if problem is None and len(nodes) > 1 and (await transport.nodes())[1] != topology:
        problem = ConnectionLost("keys have moved to a node that was scanned before")
    if problem is not None:
        raise problem


async def delete(transport: Transport, names: Sequence[str]) -> int:
    """Delete keys in batches. Returns how many existed.

    Raises:
        TransportError: Redis gave no usable reply.
    """
    deleted = 0
    for start in range(0, len(names), _BATCH):
        batch = [as_bytes(name) for name in names[start : start + _BATCH]]
        deleted += await retried(transport, partial(transport.unlink, batch))
    return deleted


async def delete_but_rejected(transport: Transport, names: Sequence[str]) -> set[str]:
    """Delete keys. Redis rejects them together, so what it rejects is attempted one by one. Returns what it rejects.

    Raises:
        TransportError: Redis gave no usable reply, or rejects everything at present.
    """
    try:
        await delete(transport, names)
        return set()
    except CommandRejected as problem:
        if problem.code not in SPECIFIC:
            raise
    asked = [(transport.capabilities.delete, as_bytes(name)) for name in names]
    replies = await ask_each(transport, asked, *SPECIFIC)
    return {name for name, reply in zip(names, replies, strict=True) if isinstance(reply, Exception)}


async def ask_each(transport: Transport, commands: Sequence[tuple[Any, ...]], *codes: str) -> list[Any]:
    """The replies to these commands, with rejections of these codes among them.

    Raises:
        TransportError: Redis gave no usable reply.
    """

    async def ask() -> list[Any]:
        replies = await transport.send_each(*commands)
        for reply in replies:
            if isinstance(reply, Exception) and not rejected_with(reply, *codes):
                raise reply
        return replies

    return await retried(transport, ask) if commands else []


def guards_of(names: Collection[str]) -> list[str]:
    """Leases and last good values of these keys, found or not: a fill may have turned one into the other."""
    return [*map(keys.lease, names), *map(keys.stale, names)]


async def retried(transport: Transport, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The outcome of ``ask``; while Redis does not answer in time, it is tried again a deadline later."""
    for _ in range(_ATTEMPTS - 1):
        with suppress(CacheUnavailable):
            return await ask()
        await asyncio.sleep(transport.deadline)
    return await ask()


def as_bytes(name: str) -> bytes:
    """The name of a key that a scan found, which may be no UTF-8."""
    return name.encode(errors="surrogateescape")


async def _page(transport: Transport, node: Node, pattern: str, size: int, cursor: int) -> tuple[int, list[bytes]]:
    position, found = await transport.send_to(node, "SCAN", cursor, "MATCH", pattern, "COUNT", size)
    return int(position), found
