"""What is known about the caller: one text, read through the cache, written to the store first."""

from __future__ import annotations

from cache import keys

from .cached import read_or
from .identity import current_caller
from .runtime import get_runtime
from .writes import Profile


async def get_user_profile_async() -> str:
    """The current caller's profile; empty when nothing is known, nobody is known, or the store cannot say."""
    caller = current_caller()
    if caller is None:
        return ""
    if (waiting := get_runtime().backlog.profile(caller.user_id)) is not None:
        return waiting
    key = keys.profile(caller.user_id)

    async def load() -> str:
        return (await get_runtime().contexts.get(caller.user_id)).profile or ""

    return await read_or("", key, load, str)


async def save_user_profile_async(profile_text: str) -> bool:
    """Replace the current caller's profile, and invalidate what was cached of it.

    Args:
        profile_text: the whole new text.

    Returns:
        Whether it is stored. False when nobody is known; or when the store cannot keep it now: then it is kept here,
        and stored as soon as the store can.

    Raises:
        TypeError: it is not a string.
    """
    if not isinstance(profile_text, str):
        raise TypeError(f"a profile is a string, not {type(profile_text).__name__}")
    caller = current_caller()
    return caller is not None and await get_runtime().backlog.write(caller.user_id, Profile(profile_text))
