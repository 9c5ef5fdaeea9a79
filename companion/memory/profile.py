"""The profile of the current caller: one text, read through the cache, written to the store first."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ..caching import PROFILE, read_user_data
from ..identity import Caller, current_caller
from ..profile_lines import within_limit
from ..runtime import get_runtime
from ..store import ProfileAuthor, StoreError
from ..text import storable
from ..writes import Profile
from .profile_change import ProfileChange
from .read_deadline import within_deadline

logger = logging.getLogger("companion")
_STORED_DEADLINE: Final = 0.5
"""Seconds that a reader of a profile that waits for the store waits for the stored one, if that is not known."""


async def get_user_profile_async() -> str:
    """The current caller's profile.

    After a failed or cancelled read, the next saved profile is added to the stored one instead of replacing it: its
    author has not seen the stored one. A change by hand can leave a profile of more than ``MAX_PROFILE`` characters; of
    that, whole lines up to the limit are read.

    Returns:
        Empty when there is none, when the caller is unknown, or when the store is away and nothing is cached. A
        profile that waits for the store is applied to the stored one.
    """
    caller = current_caller()
    if caller is None:
        return ""
    write_behind = get_runtime().write_behind
    pending = write_behind.pending_profile(caller.user_id)
    if pending is None:
        return within_limit(await _stored_profile(caller.user_id))[0]  # another version may have cached a longer one
    if write_behind.stored_profile(caller.user_id) is None:
        # What waits is shown on top of what is stored; alone, if that cannot be read soon.
        with suppress(StoreError):
            await within_deadline(_stored_profile(caller.user_id), "get_profile", seconds=_STORED_DEADLINE)
        waits, stored = write_behind.pending_profile(caller.user_id), write_behind.stored_profile(caller.user_id)
        pending = next(text for text in (waits, stored, pending) if text is not None)
    return within_limit(pending)[0]


async def _stored_profile(user_id: str) -> str:
    """The stored profile; empty when there is none, or when the store is away and nothing is cached."""
    write_behind = get_runtime().write_behind
    note = write_behind.reading_profile(user_id)
    try:
        profile = await read_user_data(PROFILE, user_id, get_runtime().contexts.get)
    except StoreError as problem:
        write_behind.unseen_profiles.add(user_id)
        logger.warning("the profile could not be read: %s", problem)
        return ""
    except asyncio.CancelledError:  # a prefetch past its deadline: the conversation goes on without the profile
        write_behind.unseen_profiles.add(user_id)
        raise
    write_behind.unseen_profiles.discard(user_id)
    note(profile)
    return profile


async def save_user_profile_async(profile_text: str, *, made_from: str | None = None) -> bool:
    """Replace the current caller's profile, and invalidate its cached copy.

    With ``made_from``, what differs between the two texts is applied to the stored profile, line by line. After a
    failed read, all lines are added to the stored profile, which the author has not seen. A text that had to wait for
    the store is added to a newer one. Lines beyond ``MAX_PROFILE`` characters become facts.

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
    if made_from is None and caller.user_id in get_runtime().write_behind.unseen_profiles:
        made_from = ""
    return (await _save(caller, profile_text, made_from, "code")).stored


@dataclass(frozen=True, slots=True)
class SavedProfile:
    """What has become of a change of a profile.

    Attributes:
        stored: whether the store has it. If not, the write-behind queue retries.
        text: the profile that is stored now, or will be when the store takes the change.
        surplus: the number of lines that had no room in it and are facts now.
        facts_changed: whether facts were added or removed.
        erased: whether it was dropped, because the person was erased after the conversation had begun.
    """

    stored: bool
    text: str
    surplus: int = 0
    facts_changed: bool = False
    erased: bool = False


async def change_user_profile_async(change: ProfileChange) -> SavedProfile:
    """Change the current caller's profile as a model asks for it, and invalidate its cached copy.

    Args:
        change: what is to change in the stored profile, whatever it says by now.

    Raises:
        LookupError: there is no current caller.
    """
    caller = current_caller()
    if caller is None:
        raise LookupError("no current caller")
    return await _save(caller, change.text, change.base, "tool")


async def _save(caller: Caller, text: str, made_from: str | None, author: ProfileAuthor) -> SavedProfile:
    write_behind = get_runtime().write_behind
    profile = Profile(storable(text), made_from=None if made_from is None else storable(made_from), author=author)
    outcome = await write_behind.write(caller.user_id, profile)
    if outcome is not None and outcome.erased:
        return SavedProfile(False, "", erased=True)
    if outcome is None or outcome.profile is None:
        pending = write_behind.pending_profile(caller.user_id)
        return SavedProfile(False, within_limit(profile.text if pending is None else pending)[0])
    now = outcome.profile
    return SavedProfile(True, now.text, now.surplus, now.facts_changed)
