"""The documented conversation context: summary, user state and memories of the current caller.

Reads go through the cache (TTL of summary and state: half an hour; of memory searches: five minutes). Writes go to the
store first and then invalidate the cache.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ..caching import STATE, SUMMARY, read_user_data, warm_user_data
from ..identity import current_caller
from ..runtime import get_runtime
from ..store import DataKind, Memory, Store, StoreError
from .facts import find_facts_async

logger = logging.getLogger("companion")
T = TypeVar("T")


async def get_conversation_summary_async() -> str:
    """The summary of the current caller's last conversation.

    Returns:
        Empty when there is none, when the caller is unknown, or when the store is away and nothing is cached.
    """
    return await _read_or("", "summary", _summary)


async def get_user_state_async() -> dict[str, Any]:
    """The current caller's state: ``conversations`` so far and the ``stage`` of the relationship.

    Returns:
        Empty when there is none, when the caller is unknown, or when the store is away and nothing is cached.
    """
    return await _read_or({}, "state", _state)


async def get_conversation_context_async() -> tuple[str, dict[str, Any]]:
    """The current caller's summary and state; while the store is away, the last good values in the cache.

    Raises:
        StoreError: the store failed, and the cache holds no copy.
    """
    caller = current_caller()
    if caller is None:
        return "", {}
    summary, state = await asyncio.gather(_summary(caller.user_id), _state(caller.user_id))
    return summary, state


async def prepare_context_async() -> None:
    """Fill the cache with the current caller's profile, summary and state, ahead of their next conversation."""
    caller = current_caller()
    if caller is None:
        return
    try:
        await warm_user_data(caller.user_id, get_runtime().contexts.get)
    except StoreError as problem:
        logger.warning("the next conversation's context could not be read: %s", problem)


async def _read_or(default: T, name: str, read: Callable[[str], Awaitable[T]]) -> T:
    caller = current_caller()
    if caller is None:
        return default
    try:
        return await read(caller.user_id)
    except StoreError as problem:
        logger.warning("the %s could not be read: %s", name, problem)
        return default


async def _summary(user_id: str) -> str:
    return await read_user_data(SUMMARY, user_id, get_runtime().contexts.get)


async def _state(user_id: str) -> dict[str, Any]:
    return await read_user_data(STATE, user_id, get_runtime().contexts.get)


async def save_user_state_async(state: dict[str, Any]) -> bool:
    """Replace the current caller's state.

    Returns:
        Whether it is stored. False when the caller is unknown or the store failed.
    """
    caller = current_caller()
    if caller is None:
        return False
    try:
        runtime = get_runtime()
        since = await runtime.write_behind.beginnings.number(caller.user_id)
        await runtime.outbox_relay.write(_save_state(runtime.store, caller.user_id, state, since), caller.user_id)
    except StoreError as problem:
        logger.warning("the state could not be saved: %s", problem)
        return False
    return True


async def search_memories_async(query: str) -> list[str]:
    """The current caller's memories that share a word with ``query``, best match first.

    Those that wait for the store come before the others.

    Args:
        query: what to search for. A query without a word to search for finds the newest memories.

    Raises:
        StoreError: the store failed, the cache holds no result, and no matching memory waits.
    """
    return (await find_facts_async(query)).texts


async def add_memory_async(memory: Memory) -> bool:
    """Store a memory of the current caller, and invalidate the cached searches.

    Returns:
        Whether it is stored. False when the caller is unknown, or was erased since the conversation began, or when the
        store is away: then the write-behind queue holds it and retries.
    """
    caller = current_caller()
    if caller is None:
        return False
    outcome = await get_runtime().write_behind.write(caller.user_id, memory)
    return outcome is not None and not outcome.erased


async def _save_state(store: Store, user_id: str, state: dict[str, Any], since: int) -> DataKind:
    await store.save_state(user_id, state, since=since)
    return "state"
