"""Walking the whole keyspace for what a pattern reaches, without ever holding the server.

SCAN in pages and UNLINK in batches: not KEYS, which answers nobody else meanwhile, and not one giant DEL. While one
page is dealt with the next is on its way, so that the server and this process work at the same time.

Leases go first, in a walk of their own. A loader that still held one could otherwise fill a key whose place the
walk has already passed; once the leases are gone no fill begun before can land, and what landed earlier is found by
the second walk. Last good values (``stale:{...}``) go with the leases.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio.cluster import RedisCluster

from . import keys
from .glob import closed

if TYPE_CHECKING:
    from .engine import Engine

_PAGE: Final = 1000
_BATCH: Final = 500


async def sweep(engine: Engine, pattern: str, wanted: Callable[[str], bool], count: Callable[[int], None]) -> None:
    """Remove every key that matches ``pattern`` and is ``wanted``.

    Args:
        engine: sends the commands.
        pattern: a Redis pattern.
        wanted: says of a key that matches whether it is meant.
        count: told of each batch how many keys were removed, so that an unfinished sweep is counted truly.

    Raises:
        engine.FAILURES: Redis stopped answering; what was removed by then stays removed.
    """
    # A pattern with a set that is never closed cannot be put between braces; then every lease is looked at.
    # The first letter is that of lease and stale: nearly every other key is put aside by looking at one character.
    around = f"[ls]*:{{{pattern}}}" if closed(pattern) else "[ls]*:{*}"
    async for page in pages(engine, around):
        await remove(engine, [key for key in page if _guarded(key) and wanted(_guarded(key))])
    async for page in pages(engine, pattern):
        count(await remove(engine, [key for key in page if wanted(key)]))


async def pages(engine: Engine, pattern: str) -> AsyncIterator[list[str]]:
    """The keys that match, page by page; the next page is asked for before one is handed out."""
    nodes: Sequence[Any] = await engine.call(_primaries)
    for node in nodes:
        asked: asyncio.Task[tuple[int, list[bytes]]] | None = _ask(engine, node, 0, pattern)
        try:
            while asked is not None:
                cursor, found = await asked
                asked = _ask(engine, node, cursor, pattern) if cursor else None
                if found:
                    yield [key.decode(errors="surrogateescape") for key in found]
        finally:
            if asked is not None:
                asked.cancel()


def _ask(engine: Engine, node: Any, cursor: int, pattern: str) -> asyncio.Task[tuple[int, list[bytes]]]:
    page = engine.call(partial(_scan, node=node, cursor=cursor, pattern=pattern))
    task = asyncio.create_task(page, name="cache-scan")
    task.add_done_callback(_look)
    return task


def _look(page: asyncio.Future[Any]) -> None:
    """Look at the outcome of a page that perhaps nobody waits for any more, so that nothing warns of it."""
    if not page.cancelled():
        page.exception()


async def remove(engine: Engine, names: Sequence[str]) -> int:
    """Remove keys as they are. Returns how many there were."""
    removed = 0
    for start in range(0, len(names), _BATCH):
        batch = [name.encode(errors="surrogateescape") for name in names[start : start + _BATCH]]
        removed += await engine.unlink(batch)
    return removed


def _guarded(key: str) -> str:
    """The key that a lease or a last good value belongs to; empty for another kind of key."""
    kind, _, rest = key.partition(":{")
    return rest[:-1] if kind in ("lease", "stale") and rest.endswith("}") else ""


async def _primaries(client: Any) -> Sequence[Any]:
    return client.get_primaries() if isinstance(client, RedisCluster) else [None]


async def _scan(client: Any, node: Any, cursor: int, pattern: str) -> tuple[int, list[bytes]]:
    if node is None:
        position, found = await client.scan(cursor, match=pattern, count=_PAGE)
        return int(position), found
    positions, found = await client.scan(cursor, match=pattern, count=_PAGE, target_nodes=node)
    return int(next(iter(positions.values()))), found


def spares_reserved(pattern: str) -> Callable[[str], bool]:
    """Everything, but the layer's own keys only for a pattern that names their prefix literally."""
    if keys.names_reserved(pattern):
        return lambda key: True
    return lambda key: not keys.is_reserved(key)
