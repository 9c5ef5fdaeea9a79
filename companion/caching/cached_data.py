"""What the cache holds of each kind of data in the store: one table for every reader of that relation.

Read-through takes key and loader from it, invalidation the keys that a write makes stale, and the consistency watch
the value that the store says is right. What else a new kind of data needs: ``docs/architecture.md``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

from cache import keys

from ..profile_lines import MAX_PROFILE, within_limit
from ..store import Context, Store
from .search_keys import count_key, generation_key, search_key

STALE_FOR: Final = 86_400
"""Seconds beyond its TTL for which a value may be served while the store fails (stale-if-error, RFC 5861)."""
MAX_FACTS: Final = 5
"""The most facts that one memory search returns."""
T = TypeVar("T")
logger = logging.getLogger("companion")


@dataclass(frozen=True, slots=True)
class CachedData(Generic[T]):
    """What the cache holds of one kind of data, and how it follows from the store.

    Attributes:
        key: from a user id to the key whose value must be right after a write of this kind.
        truth: reads from the store what may be served under ``key``. Raises StoreError.
        from_context: the same value, taken from a context that several loaders share; None for a kind whose value is
            not a plain part of it.
        value_type: what ``from_context`` returns; a value of another type was not written by this version.
        stale_for: seconds beyond the TTL for which the last good value may be served while the store fails.
        comparable: the part of a cached value that ``truth`` says; None for all of it.
        also_stale: from a user id to what else a write of this kind makes stale.
        unused_pattern: from a user id to the pattern of keys that nothing reads any more once those are deleted, but an
            earlier version. They are deleted as far as they are known by name; None where there are none.
    """

    key: Callable[[str], keys.Key]
    truth: Callable[[Store, str], Awaitable[T]]
    from_context: Callable[[Context], T] | None = None
    value_type: type[Any] = object
    stale_for: int = 0
    comparable: Callable[[Any], Any] | None = None
    also_stale: Callable[[str], tuple[keys.Key, ...]] = lambda _: ()
    unused_pattern: Callable[[str], str] | None = None

    def stale_keys(self, user_id: str) -> set[keys.Key]:
        """Every key that a write of this kind makes stale.

        How to open is one of them: it holds for one version of everything that is kept.
        """
        return {self.key(user_id), keys.greeting_instructions(user_id), *self.also_stale(user_id)}


@lru_cache(maxsize=128)
def _report_length(length: int) -> None:
    """Log once, not at each read, that a profile is longer than what is read of it."""
    logger.warning("a stored profile has %d characters: only its lines up to %d are read", length, MAX_PROFILE)


def profile_to_read(stored: str | None) -> str:
    """What is read of a stored profile: all of it, unless a change by hand has made it longer than ``MAX_PROFILE``."""
    text, surplus = within_limit(stored or "")
    if surplus:
        _report_length(len(stored or ""))
    return text


async def _profile(store: Store, user_id: str) -> str:
    return profile_to_read(await store.get_profile(user_id))


async def _last_turn(store: Store, user_id: str) -> str:
    turns = await store.recent_turns(user_id, 1)
    return turns[-1].at.isoformat() if turns else ""


async def _newest_facts(store: Store, user_id: str) -> list[str]:
    return [memory.text for memory in await store.search_memories(user_id, "", MAX_FACTS)]


async def _summary(store: Store, user_id: str) -> str:
    summary = await store.latest_summary(user_id)
    return summary.text if summary else ""


async def _state(store: Store, user_id: str) -> dict[str, Any]:
    return await store.get_state(user_id) or {}


PROFILE: Final[CachedData[str]] = CachedData(
    key=keys.profile,
    truth=_profile,
    from_context=lambda context: profile_to_read(context.profile),
    value_type=str,
    stale_for=STALE_FOR,
)
SUMMARY: Final[CachedData[str]] = CachedData(
    key=keys.summary,
    truth=_summary,
    from_context=lambda context: context.summary.text if context.summary else "",
    value_type=str,
    stale_for=STALE_FOR,
)
STATE: Final[CachedData[dict[str, Any]]] = CachedData(
    key=keys.state,
    truth=_state,
    from_context=lambda context: context.state or {},
    value_type=dict,
    stale_for=STALE_FOR,
)
# Of how to open, the watch compares the time of the last turn, which follows from the turns; the rest is a model's
# decision.
TURN: Final[CachedData[str]] = CachedData(
    key=keys.greeting_instructions,
    truth=_last_turn,
    comparable=lambda greeting: greeting.get("last_seen") if isinstance(greeting, dict) else greeting,
)
# Of all searches, the watch compares the one for the newest facts, which has a name of its own, as has their number.
MEMORY: Final[CachedData[list[str]]] = CachedData(
    key=lambda user_id: search_key(user_id, ""),
    truth=_newest_facts,
    also_stale=lambda user_id: (generation_key(user_id), count_key(user_id, "")),
    unused_pattern=lambda user_id: f"{keys.user_prefix(user_id)}memory:*",
)
CACHED_DATA: Final[Mapping[str, CachedData[Any]]] = {
    "profile": PROFILE,
    "turn": TURN,
    "memory": MEMORY,
    "summary": SUMMARY,
    "state": STATE,
}
"""The table, by kind of data: an entry for every ``DataKind``."""
MAX_LIFETIME: Final = max((data.key("-").ttl or 0) + data.stale_for for data in CACHED_DATA.values())
"""Seconds after which no cached value is left of what the store held: the longest TTL and stale time together."""
