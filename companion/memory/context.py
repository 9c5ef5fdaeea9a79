"""What earlier conversations left behind: a summary, how well we know each other, and what is remembered.

The documented "conversation context": read through the cache (summary and state ten minutes, memory searches five),
written to the store first and then invalidated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from cache import keys

from ..caching.read_through import MAX_FACTS, STALE_FOR, read_through, search_key
from ..identity import current_caller
from ..runtime import get_runtime
from ..store import DataKind, Memory, Store, StoreError

logger = logging.getLogger("companion")
T = TypeVar("T")


async def get_conversation_summary_async() -> str:
    """What the current caller's last conversation was about; empty when there was none or the store cannot say."""
    return await _or("", "summary", _summary)


async def get_user_state_async() -> dict[str, Any]:
    """The current caller's state: ``conversations`` so far and the ``stage`` of acquaintance; empty when unknown."""
    return await _or({}, "state", _state)


async def get_conversation_context_async() -> tuple[str, dict[str, Any]]:
    """The current caller's summary and state, as they are or as they last were known to be.

    Raises:
        StoreError: neither cache nor store can say.
    """
    caller = current_caller()
    if caller is None:
        return "", {}
    summary, state = await asyncio.gather(_summary(caller.user_id), _state(caller.user_id))
    return summary, state


async def _or(otherwise: T, what: str, read: Callable[[str], Awaitable[T]]) -> T:
    caller = current_caller()
    if caller is None:
        return otherwise
    try:
        return await read(caller.user_id)
    except StoreError as problem:
        logger.warning("the %s could not be read: %s", what, problem)
        return otherwise


async def _summary(user_id: str) -> str:
    async def load() -> str:
        summary = (await get_runtime().contexts.get(user_id)).summary
        return summary.text if summary else ""

    return await read_through(keys.summary(user_id), load, str, stale_for=STALE_FOR)


async def _state(user_id: str) -> dict[str, Any]:
    async def load() -> dict[str, Any]:
        return (await get_runtime().contexts.get(user_id)).state or {}

    return await read_through(keys.state(user_id), load, dict, stale_for=STALE_FOR)


async def save_user_state_async(state: dict[str, Any]) -> bool:
    """Replace the current caller's state. Whether it is stored."""
    caller = current_caller()
    if caller is None:
        return False
    try:
        runtime = get_runtime()
        await runtime.outbox_relay.write(_save_state(runtime.store, caller.user_id, state), caller.user_id)
    except StoreError as problem:
        logger.warning("the state could not be saved: %s", problem)
        return False
    return True


async def search_memories_async(query: str) -> list[str]:
    """Facts the current caller asked to remember that share a word with ``query``, best first; else the newest.

    Raises:
        StoreError: neither cache nor store can say.
    """
    caller = current_caller()
    if caller is None:
        return []

    async def load() -> list[str]:
        found = await get_runtime().store.search_memories(caller.user_id, query, MAX_FACTS)
        return [memory.text for memory in found]

    found = await read_through(search_key(caller.user_id, query), load, list)
    return [fact for fact in found if isinstance(fact, str)]


async def add_memory_async(memory: Memory) -> bool:
    """Remember a fact of the current caller, and invalidate what was searched before.

    Returns:
        Whether it is stored. False when nobody is known; or when the store cannot keep it now: then it is kept here,
        and stored as soon as the store can.
    """
    caller = current_caller()
    return caller is not None and await get_runtime().write_behind.write(caller.user_id, memory)


async def _save_state(store: Store, user_id: str, state: dict[str, Any]) -> DataKind:
    await store.save_state(user_id, state)
    return "state"
