"""Read-through: the cache answers, or loads from the store under the cache's lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from secrets import token_hex
from typing import Any, TypeVar

from cache import LoadTimeout, get_redis_cache, keys

from ..store import Context, Store, StoreError, search_words
from .cached_data import MAX_FACTS, PROFILE, STATE, SUMMARY, CachedData
from .search_keys import count_key, generation_key, search_key

T = TypeVar("T")


async def read_user_data(data: CachedData[T], user_id: str, context: Callable[[str], Awaitable[Context]]) -> T:
    """Read one kind of a user's data.

    Args:
        data: the entry of the table, one whose value is a part of the context.
        user_id: whose data.
        context: reads the user's context from the store; raises StoreError.

    Returns:
        The value; the empty one of its type where the store has none.

    Raises:
        StoreError: neither the cache nor the store could answer.
        ValueError: the kind of data is not a part of the context.
    """
    return await _read_through(data.key(user_id), _loader(data, user_id, context), data.value_type, data.stale_for)


async def warm_user_data(user_id: str, context: Callable[[str], Awaitable[Context]]) -> None:
    """Load what a conversation begins with, ahead of it: profile, summary and state, as far as they are not cached.

    Args:
        user_id: whose data.
        context: as in ``read_user_data``.

    Raises:
        StoreError: the store could not answer.
    """
    cache = await get_redis_cache()
    tables: tuple[CachedData[Any], ...] = (PROFILE, SUMMARY, STATE)
    loads = [(data.key(user_id), _loader(data, user_id, context), data.stale_for) for data in tables]
    try:
        await asyncio.gather(*(cache.warm(key, load, key.ttl, stale_for=stale) for key, load, stale in loads))
    except LoadTimeout as problem:
        raise StoreError("read", str(problem)) from None


def _loader(
    data: CachedData[T], user_id: str, context: Callable[[str], Awaitable[Context]]
) -> Callable[[], Awaitable[T]]:
    part = data.from_context
    if part is None:
        raise ValueError("this kind of data is not a part of the context")

    async def load() -> T:
        return part(await context(user_id))

    return load


async def read_memory_search(store: Callable[[], Store], user_id: str, query: str) -> list[str]:
    """Search a user's memories.

    Args:
        store: returns the store to search on a miss.
        user_id: whose memories.
        query: the question; without a word to look for, the newest memories are found.

    Returns:
        The texts of the memories found, best first.

    Raises:
        StoreError: neither the cache nor the store could answer.
    """

    async def load() -> list[str]:
        return [memory.text for memory in await store().search_memories(user_id, query, MAX_FACTS)]

    key = search_key(user_id, query, await _generation(user_id, query))
    found = await _read_through(key, load, list, 0)
    return [fact for fact in found if isinstance(fact, str)]


async def read_memory_count(store: Callable[[], Store], user_id: str, query: str) -> int:
    """Count the memories that a search without a limit finds.

    Args:
        store: returns the store to ask on a miss.
        user_id: whose memories.
        query: the question; without a word to look for, all memories are counted.

    Returns:
        Their number.

    Raises:
        StoreError: neither the cache nor the store could answer.
    """

    async def load() -> int:
        return await store().count_memories(user_id, query)

    return await _read_through(count_key(user_id, query, await _generation(user_id, query)), load, int, 0)


async def _generation(user_id: str, query: str) -> str:
    """The generation that a search belongs to; see ``generation_key``. Raises nothing."""

    async def begin() -> str:
        return token_hex(8)

    return await _read_through(generation_key(user_id), begin, str, 0) if search_words(query) else ""


async def _read_through(key: keys.Key, load: Callable[[], Awaitable[T]], value_type: type[Any], stale_for: int) -> T:
    """Raises StoreError."""
    cache = await get_redis_cache()
    try:
        found: T = await cache.get_or_load(key, load, ttl=key.ttl, stale_for=stale_for)
    except LoadTimeout as problem:
        raise StoreError("read", str(problem)) from None
    if isinstance(found, value_type):
        return found
    await cache.delete(key)  # written by another program, or another version of this one
    return await load()
