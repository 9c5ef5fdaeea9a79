"""The profile of the current caller: one text, read through the cache, written to the store first."""

from __future__ import annotations

import asyncio
import logging

from ..caching import PROFILE, read_user_data
from ..identity import current_caller
from ..runtime import get_runtime
from ..store import StoreError
from ..text import storable
from ..writes import Profile

logger = logging.getLogger("companion")


async def get_user_profile_async() -> str:
    """The current caller's profile.

    After a failed or cancelled read, the next saved profile is merged with the stored one instead of replacing it: its
    author has not seen the stored one.

    Returns:
        Empty when there is none, when the caller is unknown, or when the store is away and nothing is cached.
    """
    caller = current_caller()
    if caller is None:
        return ""
    if (pending := get_runtime().write_behind.pending_profile(caller.user_id)) is not None:
        return pending
    unseen = get_runtime().write_behind.unseen_profiles
    try:
        profile = await read_user_data(PROFILE, caller.user_id, get_runtime().contexts.get)
    except StoreError as problem:
        unseen.add(caller.user_id)
        logger.warning("the profile could not be read: %s", problem)
        return ""
    except asyncio.CancelledError:  # a prefetch past its deadline: the conversation goes on without the profile
        unseen.add(caller.user_id)
        raise
    unseen.discard(caller.user_id)
    return profile


async def save_user_profile_async(profile_text: str, *, made_from: str | None = None) -> bool:
    """Replace the current caller's profile, and invalidate its cached copy.

    The text is merged with the stored profile instead of replacing it if the stored one differs from ``made_from``, if
    the last read failed, or if the write had to wait for the store.

    Args:
        profile_text: the whole new text.
        made_from: the profile that the new text was made from; empty for a first profile. None replaces any stored
            profile.

    Returns:
        Whether it is stored. False when the caller is unknown, or when the store is away: then the write-behind queue
        holds it and retries.

    Raises:
        TypeError: ``profile_text`` is not a string.
    """
    if not isinstance(profile_text, str):
        raise TypeError(f"a profile is a string, not {type(profile_text).__name__}")
    caller = current_caller()
    if caller is None:
        return False
    profile = Profile(storable(profile_text), made_from=made_from)
    return await get_runtime().write_behind.write(caller.user_id, profile)
