"""The cache keys of memory searches: their names hold the words of a query, and the generation of the memories."""

from __future__ import annotations

import hashlib

from cache import keys

from ..store import search_words


def generation_key(user_id: str) -> keys.Key:
    """The cache key of the generation of a user's memory searches: a random text, new after each change.

    It is a part of the names of the searches, so that deleting this one key invalidates all of them, without a scan.
    """
    return keys.memory(user_id, "generation")


def search_key(user_id: str, query: str, generation: str = "") -> keys.Key:
    """The cache key of a memory search; queries for the same words share it.

    Args:
        user_id: whose memories are searched.
        query: the question, as it was asked.
        generation: what ``generation_key`` holds; empty for a query without words, whose key has one name always.

    Returns:
        The key, with its TTL.
    """
    return keys.memory(user_id, f"search-{_digest(query, generation)}")


def count_key(user_id: str, query: str, generation: str = "") -> keys.Key:
    """The cache key of the number of memories that match a search; as ``search_key``."""
    return keys.memory(user_id, f"count-{_digest(query, generation)}")


def _digest(query: str, generation: str) -> str:
    words = " ".join([*sorted(set(search_words(query))), *([generation] if generation else [])])
    return hashlib.sha256(words.encode()).hexdigest()[:32]
