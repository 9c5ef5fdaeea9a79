"""What is known about the caller: one text, read through the cache, written to the store first."""

from __future__ import annotations

import logging
from typing import Final

from cache import get_redis_cache, keys

from .identity import current_caller
from .runtime import get_runtime
from .store import StoreError

logger = logging.getLogger("companion")
STALE_FOR: Final = 86_400
"""Seconds for which the last good profile stands in while the store fails. Never after a change of it."""


async def get_user_profile_async() -> str:
    """The current caller's profile; empty when nothing is known, nobody is known, or the store cannot say."""
    caller = current_caller()
    if caller is None:
        return ""
    key = keys.profile(caller.user_id)

    async def load() -> str:
        return (await get_runtime().contexts.get(caller.user_id)).profile or ""

    cache = await get_redis_cache()
    try:
        profile = await cache.get_or_load(key, load, ttl=key.ttl, stale_for=STALE_FOR)
    except StoreError as problem:
        logger.warning("the profile could not be read: %s", problem)
        return ""
    return profile if isinstance(profile, str) else ""


async def save_user_profile_async(profile_text: str) -> bool:
    """Replace the current caller's profile, and invalidate what was cached of it.

    Args:
        profile_text: the whole new text.

    Returns:
        Whether it is stored. False when nobody is known or the store cannot keep it now.

    Raises:
        TypeError: it is not a string.
    """
    if not isinstance(profile_text, str):
        raise TypeError(f"a profile is a string, not {type(profile_text).__name__}")
    caller = current_caller()
    if caller is None:
        return False
    try:
        await get_runtime().store.save_profile(caller.user_id, profile_text)
    except StoreError as problem:
        logger.warning("the profile could not be saved: %s", problem)
        return False
    await get_runtime().delivery.changed(caller.user_id, "profile")
    return True
