"""What is known about the caller: one text, read through the cache, written to the store first."""

from __future__ import annotations

import logging

from cache import keys

from .cached import read_or
from .identity import current_caller
from .runtime import get_runtime
from .store import StoreError

logger = logging.getLogger("companion")


async def get_user_profile_async() -> str:
    """The current caller's profile; empty when nothing is known, nobody is known, or the store cannot say."""
    caller = current_caller()
    if caller is None:
        return ""
    key = keys.profile(caller.user_id)

    async def load() -> str:
        return (await get_runtime().contexts.get(caller.user_id)).profile or ""

    return await read_or("", key, load, str)


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
        runtime = get_runtime()
        await runtime.delivery.write(
            runtime.store.save_profile(caller.user_id, profile_text), caller.user_id, "profile"
        )
    except StoreError as problem:
        logger.warning("the profile could not be saved: %s", problem)
        return False
    return True
