"""Walking the whole keyspace for what a pattern reaches, without ever holding the server.

SCAN in pages and UNLINK in batches: not KEYS, which answers nobody else meanwhile, and not one giant DEL. While one
page is dealt with the next is on its way, so that the server and this process work at the same time.

Leases go before values, in a walk of their own. A loader that still held one could otherwise fill a key whose place
the walk has already passed; once the leases are gone no fill begun before can land, and what landed earlier is found
by the walk for values. Last good values (``stale:{...}``) go with the leases. A pattern that reaches most of what
there is gets rid of that before either walk: both are then walks through a nearly empty server.

Each step has the usual deadline. Once a walk has begun, a server that pauses is given ``_PATIENCE`` tries at a step, a
deadline apart: a walk over a million keys should not be lost to one hiccup.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from redis.asyncio.cluster import RedisCluster

from .. import keys
from ..background import retrieve_exception
from ..coherence.glob import closed, matches
from ..exceptions import CacheUnavailable

if TYPE_CHECKING:
    from ..core.engine import Engine

T = TypeVar("T")
_PAGE: Final = 1000
_MOST: Final = 0.4  # share of a page from which on it is worth to remove values before leases, and once more after
_BATCH: Final = 500
_PATIENCE: Final = 3


async def sweep(engine: Engine, pattern: str, wanted: Callable[[str], bool], count: Callable[[int], None]) -> None:
    """Remove every key that matches ``pattern`` and is ``wanted``.

    Args:
        engine: sends the commands.
        pattern: a Redis pattern.
        wanted: says of a key that matches whether it is meant.
        count: told of each batch how many keys were removed, so that an unfinished sweep is counted truly.

    Raises:
        road.TransportError: Redis stopped answering; what was removed by then stays removed.
    """
    async with aclosing(pages(engine, pattern, ahead=True)) as values:
        async for page in values:
            count(await remove(engine, [key for key in page if wanted(key)]))
            if len(page) < _MOST * _PAGE:
                break
    # A pattern with a set that is never closed cannot be put between braces; then every lease is looked at.
    # The first letter is that of lease and stale: nearly every other key is put aside by looking at one character.
    around = f"[ls]*:{{{pattern}}}" if closed(pattern) else "[ls]*:{*}"
    async for page in pages(engine, around, ahead=True):
        await remove(
            engine, [key for key in page if (name := guarded(key)) and matches(pattern, name) and wanted(name)]
        )
    async for page in pages(engine, pattern, ahead=True):
        count(await remove(engine, [key for key in page if wanted(key)]))


async def pages(
    engine: Engine, pattern: str, *, ahead: bool = False, size: int = _PAGE
) -> AsyncGenerator[list[str], None]:
    """The keys that match, page by page, empty pages too.

    Args:
        engine: sends the commands.
        pattern: a Redis pattern.
        ahead: ask for the next page before one is handed out. It keeps the server busy all the time.
        size: keys to look at for a page, about. Nobody else is answered while the server looks.
    """
    nodes: Sequence[Any] = await engine.call(_primaries)
    for node in nodes:
        asked: asyncio.Task[tuple[int, list[bytes]]] | None = _ask(engine, node, 0, pattern, size)
        try:
            cursor, begun = 0, False
            while asked is not None:
                first, again = asked, partial(_ask, engine, node, cursor, pattern, size)
                cursor, found = await _patiently(engine, first, again if begun else None)
                begun = True
                asked = _ask(engine, node, cursor, pattern, size) if cursor and ahead else None
                yield [key.decode(errors="surrogateescape") for key in found]
                if cursor and asked is None:
                    asked = _ask(engine, node, cursor, pattern, size)
        finally:
            if asked is not None:
                asked.cancel()


def _ask(engine: Engine, node: Any, cursor: int, pattern: str, size: int) -> asyncio.Task[tuple[int, list[bytes]]]:
    page = engine.call(partial(_scan, node=node, cursor=cursor, pattern=pattern, size=size))
    task = asyncio.create_task(page, name="cache-scan")
    task.add_done_callback(retrieve_exception)
    return task


async def remove(engine: Engine, names: Sequence[str]) -> int:
    """Remove keys as they are. Returns how many there were."""
    removed = 0
    for start in range(0, len(names), _BATCH):
        batch = [name.encode(errors="surrogateescape") for name in names[start : start + _BATCH]]
        removed += await _patiently(engine, engine.unlink(batch), partial(engine.unlink, batch))
    return removed


async def _patiently(engine: Engine, first: Awaitable[T], again: Callable[[], Awaitable[T]] | None) -> T:
    """The outcome of ``first``; if Redis did not answer in time, of ``again``, tried after a deadline each."""
    for _ in range(_PATIENCE - 1 if again is not None else 0):
        try:
            return await first
        except CacheUnavailable:
            assert again is not None
            await asyncio.sleep(engine.deadline)
            first = again()
    return await first


def guarded(key: str) -> str:
    """The key that a lease or a last good value belongs to; empty for another kind of key."""
    kind, _, rest = key.partition(":{")
    return rest[:-1] if kind in ("lease", "stale") and rest.endswith("}") else ""


async def _primaries(client: Any) -> Sequence[Any]:
    return client.get_primaries() if isinstance(client, RedisCluster) else [None]


async def _scan(client: Any, node: Any, cursor: int, pattern: str, size: int) -> tuple[int, list[bytes]]:
    if node is None:
        position, found = await client.scan(cursor, match=pattern, count=size)
        return int(position), found
    positions, found = await client.scan(cursor, match=pattern, count=size, target_nodes=node)
    return int(next(iter(positions.values()))), found


def spares_reserved(pattern: str) -> Callable[[str], bool]:
    """Everything, but the layer's own keys only for a pattern that names their prefix literally.

    Never the mark of the server: without it all values would be doubted (:mod:`cache.coherence.server_epoch`).
    """
    mark = keys.system_server()
    if keys.names_reserved(pattern):
        return lambda key: key != mark
    reserved = keys.RESERVED
    return lambda key: not key.startswith(reserved)
