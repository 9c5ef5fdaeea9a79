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
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final, TypeVar

from .. import keys
from ..background import retrieve_exception
from ..coherence.glob import matches, plain_start
from ..exceptions import CacheUnavailable, ConnectionLost, TransportError, rejected_with
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
    for node in nodes:
        request: asyncio.Task[tuple[int, list[bytes]]] | None = _request(transport, node, 0, pattern, size)
        try:
            again = None  # a scan that has not begun is not retried
            while request is not None:
                cursor, found = await retried(transport, request, again)
                again = partial(_request, transport, node, cursor, pattern, size)
                request = again() if cursor else None
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
        deleted += await retried(transport, transport.unlink(batch), partial(transport.unlink, batch))
    return deleted


async def delete_each(transport: Transport, names: Sequence[str]) -> set[str]:
    """Delete keys one by one. Returns those that Redis rejects.

    Raises:
        TransportError: Redis gave no usable reply.
    """
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

    return await retried(transport, ask(), ask) if commands else []


def guards_of(names: Sequence[str]) -> list[str]:
    """Leases and last good values of these keys, found or not: a fill may have turned one into the other."""
    return [*map(keys.lease, names), *map(keys.stale, names)]


def _request(
    transport: Transport, node: Node, cursor: int, pattern: str, size: int
) -> asyncio.Task[tuple[int, list[bytes]]]:
    task = asyncio.create_task(_scan(transport, node, cursor, pattern, size), name="cache-scan")
    task.add_done_callback(retrieve_exception)
    return task


async def retried(transport: Transport, first: Awaitable[T], again: Callable[[], Awaitable[T]] | None) -> T:
    """The outcome of ``first``; while Redis does not answer in time, of ``again``, tried after a deadline each."""
    for _ in range(_ATTEMPTS - 1 if again is not None else 0):
        try:
            return await first
        except CacheUnavailable:
            assert again is not None
            await asyncio.sleep(transport.deadline)
            first = again()
    return await first


def as_bytes(name: str) -> bytes:
    """The name of a key that a scan found, which may be no UTF-8."""
    return name.encode(errors="surrogateescape")


async def _scan(transport: Transport, node: Node, cursor: int, pattern: str, size: int) -> tuple[int, list[bytes]]:
    position, found = await transport.send_to(node, "SCAN", cursor, "MATCH", pattern, "COUNT", size)
    return int(position), found
