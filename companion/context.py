"""What earlier conversations left behind: a summary, how well we know each other, and what is remembered.

The documented "conversation context": read through the cache (summary and state ten minutes, memory searches five),
written to the store first and then invalidated.
"""

from __future__ import annotations

import logging
from typing import Any

from cache import keys

from .cached import MAX_FACTS, read_or, read_through, search_key
from .identity import current_caller
from .runtime import get_runtime
from .store import Memory, Store, StoreError, What

logger = logging.getLogger("companion")


async def get_conversation_summary_async() -> str:
    """What the current caller's last conversation was about; empty when there was none or the store cannot say."""
    caller = current_caller()
    if caller is None:
        return ""
    key = keys.summary(caller.user_id)

    async def load() -> str:
        summary = (await get_runtime().contexts.get(caller.user_id)).summary
        return summary.text if summary else ""

    return await read_or("", key, load, str)


async def get_user_state_async() -> dict[str, Any]:
    """The current caller's state: ``conversations`` so far and the ``stage`` of acquaintance; empty when unknown."""
    caller = current_caller()
    if caller is None:
        return {}
    key = keys.state(caller.user_id)

    async def load() -> dict[str, Any]:
        return (await get_runtime().contexts.get(caller.user_id)).state or {}

    return await read_or({}, key, load, dict)


async def save_user_state_async(state: dict[str, Any]) -> bool:
    """Replace the current caller's state. Whether it is stored."""
    caller = current_caller()
    if caller is None:
        return False
    try:
        runtime = get_runtime()
        await runtime.delivery.write(_save_state(runtime.store, caller.user_id, state), caller.user_id)
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
    return caller is not None and await get_runtime().backlog.write(caller.user_id, memory)


async def _save_state(store: Store, user_id: str, state: dict[str, Any]) -> What:
    await store.save_state(user_id, state)
    return "state"
