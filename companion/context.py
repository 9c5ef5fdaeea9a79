"""What earlier conversations left behind: a summary, how well we know each other, and what is remembered.

The documented "conversation context": read through the cache (summary and state ten minutes, memory searches five),
written to the store first and then invalidated.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any, Final

from cache import get_redis_cache, keys

from .identity import current_caller
from .profile import STALE_FOR
from .runtime import get_runtime
from .store import Memory, StoreError
from .store.words import search_words

logger = logging.getLogger("companion")
MAX_FACTS: Final = 5
"""Facts a search gives at most."""


async def get_conversation_summary_async() -> str:
    """What the current caller's last conversation was about; empty when there was none or the store cannot say."""
    caller = current_caller()
    if caller is None:
        return ""
    key = keys.summary(caller.user_id)

    async def load() -> str:
        summary = (await get_runtime().contexts.get(caller.user_id)).summary
        return summary.text if summary else ""

    found = await _read(key, load, "")
    return found if isinstance(found, str) else ""


async def get_user_state_async() -> dict[str, Any]:
    """The current caller's state: ``conversations`` so far and the ``stage`` of acquaintance; empty when unknown."""
    caller = current_caller()
    if caller is None:
        return {}
    key = keys.state(caller.user_id)

    async def load() -> dict[str, Any]:
        return (await get_runtime().contexts.get(caller.user_id)).state or {}

    found = await _read(key, load, {})
    return found if isinstance(found, dict) else {}


async def save_user_state_async(state: dict[str, Any]) -> bool:
    """Replace the current caller's state. Whether it is stored."""
    caller = current_caller()
    if caller is None:
        return False
    try:
        await get_runtime().store.save_state(caller.user_id, state)
    except StoreError as problem:
        logger.warning("the state could not be saved: %s", problem)
        return False
    await get_runtime().delivery.changed(caller.user_id, "state")
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

    key = keys.memory(caller.user_id, _search_id(query))
    cache = await get_redis_cache()
    facts = await cache.get_or_load(key, load, ttl=key.ttl)
    return [fact for fact in facts if isinstance(fact, str)] if isinstance(facts, list) else []


async def add_memory_async(memory: Memory) -> None:
    """Remember a fact of the current caller, and invalidate what was searched before.

    Raises:
        StoreError: it is not stored.
    """
    caller = current_caller()
    if caller is None:
        raise StoreError("add_memory", "nobody is known")
    await get_runtime().store.add_memory(caller.user_id, memory)
    await get_runtime().delivery.changed(caller.user_id, "memory")


async def _read(key: keys.Key, load: Any, otherwise: Any) -> Any:
    cache = await get_redis_cache()
    try:
        return await cache.get_or_load(key, load, ttl=key.ttl, stale_for=STALE_FOR)
    except StoreError as problem:
        logger.warning("the %s could not be read: %s", key.rpartition(":")[2], problem)
        return otherwise


def _search_id(query: str) -> str:
    """What the search is kept under: the same for questions that look for the same words."""
    words = " ".join(sorted(set(search_words(query))))
    return f"search-{hashlib.sha256(words.encode()).hexdigest()[:32]}"
