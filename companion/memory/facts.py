"""The facts of the current caller: those that the store has, and those that wait for it.

A fact is found from the moment it was said, whatever the store does.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from ..caching import MAX_FACTS, read_memory_count, read_memory_search
from ..identity import current_caller
from ..runtime import get_runtime
from ..store import DataKind, Memory, StoreError, fact_key, search_words, shares_word
from .read_deadline import within_deadline

logger = logging.getLogger("companion")
MAX_KEPT_FACTS: Final = 1000
"""Facts from which on a user is asked which one may go. What was promised earlier is stored all the same."""
# Seconds; both together are less than the deadline of a tool.
_SEARCH_DEADLINE: Final = 1.2
_COUNT_DEADLINE: Final = 0.4
_REMOVE_DEADLINE: Final = 1.8


@dataclass(frozen=True, slots=True)
class FoundFacts:
    """The outcome of a search.

    Attributes:
        texts: the facts, at most ``MAX_FACTS``; what waits for the store comes first, then the best match.
        total: how many facts match; None where the store could not count them.
        complete: whether the store was searched. If not, the facts are those that wait for it.
    """

    texts: list[str]
    total: int | None
    complete: bool = True


async def find_facts_async(query: str) -> FoundFacts:
    """The current caller's facts that share a word with ``query``.

    Args:
        query: what to search for. A query without a word to search for finds the newest facts.

    Raises:
        StoreError: the store failed or did not answer in time, the cache holds no result, and no matching fact waits.
    """
    caller = current_caller()
    if caller is None:
        return FoundFacts([], 0)
    runtime = get_runtime()
    # Before the search: a fact that is stored meanwhile is in the one or in the other.
    waiting = _matching(query, runtime.write_behind.waiting_facts(caller.user_id))
    try:
        search = read_memory_search(lambda: runtime.store, caller.user_id, query)
        stored = await within_deadline(search, "search_memories", seconds=_SEARCH_DEADLINE)
    except StoreError as problem:
        spooled = await asyncio.to_thread(runtime.spool.facts, caller.user_id)
        waiting = _matching(query, [*spooled, *reversed(waiting)])
        if not waiting:
            raise
        logger.warning("facts could not be searched: %s", problem)
        return FoundFacts(waiting[:MAX_FACTS], None, complete=False)
    known = set(map(fact_key, stored))
    new = [text for text in waiting if fact_key(text) not in known]
    total: int | None = len(stored)
    if len(stored) >= MAX_FACTS:
        total = await _count(caller.user_id, query)
    return FoundFacts([*new, *stored][:MAX_FACTS], None if total is None else total + len(new))


Kept: TypeAlias = Literal["stored", "waiting", "erased", "full", "not found"]
"""What has become of a fact; see ``remember_fact_async``."""


async def remember_fact_async(text: str, *, instead_of: str = "") -> Kept:
    """Keep a fact of the current caller.

    Args:
        text: the fact.
        instead_of: a fact to remove first, in its own words; empty for none.

    Returns:
        ``stored``; ``waiting`` if the store is away, and the write-behind queue retries (if it did not answer in time,
        the fact ``instead_of`` may stay); ``full`` if there are ``MAX_KEPT_FACTS`` already, ``not found`` if there is
        no fact ``instead_of``, ``erased`` if the person was erased since the conversation began: then nothing is kept.

    Raises:
        StoreError: the store could not remove the fact ``instead_of``; nothing is kept.
    """
    caller = current_caller()
    if caller is None:
        return "not found" if instead_of else "full"
    fact = Memory(text, datetime.now(UTC))
    if instead_of:
        removed = await _remove(caller.user_id, instead_of)
        if removed is None:  # it may be removed after all: then this one must be there
            get_runtime().write_behind.add(caller.user_id, fact)
            return "waiting"
        if not removed:
            return "not found"
    elif await _is_full(caller.user_id, text):
        return "full"
    stored = await get_runtime().write_behind.write(caller.user_id, fact)
    if stored is None:
        return "waiting"
    return "erased" if stored.erased else "stored"


async def _remove(user_id: str, text: str) -> int | None:
    """How many facts were removed; None if the store does not answer in time, and may still remove it."""
    runtime = get_runtime()
    waiting = await runtime.write_behind.withdraw_fact(user_id, text)
    removed: int | None = None

    async def work() -> DataKind:
        nonlocal removed
        removed = len(waiting) + await runtime.store.remove_memory(user_id, text)
        return "memory"

    try:
        async with asyncio.timeout(_REMOVE_DEADLINE):
            await runtime.outbox_relay.write(work(), user_id)
    except TimeoutError:
        logger.warning("a fact was not replaced in time")  # if it was the cache that did not answer, it was
    except StoreError:
        # It stays as it was; as new ones, since the store may have removed what it does not confirm.
        runtime.write_behind.add(user_id, *(Memory(fact.text, fact.at) for fact in waiting))
        raise
    return removed


async def _is_full(user_id: str, text: str) -> bool:
    total = await _count(user_id, "")
    if total is None or total + len(get_runtime().write_behind.waiting_facts(user_id)) < MAX_KEPT_FACTS:
        return False
    try:
        known = (await find_facts_async(text)).texts
    except StoreError:
        return True
    return fact_key(text) not in map(fact_key, known)


async def _count(user_id: str, query: str) -> int | None:
    try:
        count = read_memory_count(lambda: get_runtime().store, user_id, query)
        return await within_deadline(count, "count_memories", seconds=_COUNT_DEADLINE)
    except StoreError as problem:
        logger.warning("facts could not be counted: %s", problem)
        return None


def _matching(query: str, texts: list[str]) -> list[str]:
    """Those that match, each once, the newest first; ``texts`` has the newest last."""
    words = search_words(query)
    found = {fact_key(text): text for text in texts if not words or shares_word(words, text)}
    return list(found.values())[::-1]
