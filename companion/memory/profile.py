"""What is known about the caller: one text, read through the cache, written to the store first."""

from __future__ import annotations

import asyncio
import logging

from cache import keys

from ..caching.read_through import STALE_FOR, read_through
from ..identity import current_caller
from ..runtime import get_runtime
from ..store import StoreError
from ..writes.records import Profile

logger = logging.getLogger("companion")


async def get_user_profile_async() -> str:
    """The current caller's profile; empty when nothing is known, nobody is known, or the store cannot say.

    Where it cannot, what is saved next is merged with what is there, since whoever saves it does not know that.
    """
    caller = current_caller()
    if caller is None:
        return ""
    if (waiting := get_runtime().write_behind.pending_profile(caller.user_id)) is not None:
        return waiting
    key = keys.profile(caller.user_id)

    async def load() -> str:
        return (await get_runtime().contexts.get(caller.user_id)).profile or ""

    unread = get_runtime().write_behind.unseen_profiles
    try:
        profile = await read_through(key, load, str, stale_for=STALE_FOR)
    except StoreError as problem:
        unread.add(caller.user_id)
        logger.warning("the profile could not be read: %s", problem)
        return ""
    except asyncio.CancelledError:  # it took too long: whoever asked goes on without it
        unread.add(caller.user_id)
        raise
    unread.discard(caller.user_id)
    return profile


async def save_user_profile_async(profile_text: str, *, made_from: str | None = None) -> bool:
    """Replace the current caller's profile, and invalidate what was cached of it.

    Where another one is there than it was made from, or the last one could not be read, or the store was away, it is
    merged with what is there instead.

    Args:
        profile_text: the whole new text.
        made_from: the text it was made from, empty for none; None where whatever is there is to be replaced.

    Returns:
        Whether it is stored. False when nobody is known; or when the store cannot keep it now: then it is kept here,
        and stored as soon as the store can.

    Raises:
        TypeError: it is not a string.
    """
    if not isinstance(profile_text, str):
        raise TypeError(f"a profile is a string, not {type(profile_text).__name__}")
    caller = current_caller()
    if caller is None:
        return False
    return await get_runtime().write_behind.write(caller.user_id, Profile(profile_text, made_from=made_from))
