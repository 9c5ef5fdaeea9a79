"""Deletes from the cache what a change in the store has made stale."""

from __future__ import annotations

from collections.abc import Iterable

from cache import RedisCache, keys

from ..store import OutboxRow
from .cached_data import CACHED_DATA


async def clear_speech(cache: RedisCache, user_id: str) -> None:
    """Delete the speech that was prepared for a user: nothing plays it when its text has changed, but it is there."""
    await cache.invalidate(f"{keys.user_prefix(user_id)}speech:*", user_id=user_id, own=True)


async def invalidate(cache: RedisCache, user_id: str, kind: str) -> None:
    """Delete what a change of a user's data has made stale.

    A user id that cannot be part of a key has nothing in the cache.

    Args:
        cache: the cache to delete from.
        user_id: whose data has changed, as the database holds it.
        kind: the kind of data. For one that the table does not have (a newer version of the companion may write it),
            everything that the cache layer wrote of the user is deleted.
    """
    try:
        keys.user_id(user_id)
    except keys.InvalidKeyPart:
        return
    data = CACHED_DATA.get(kind)
    if data is None:
        await cache.invalidate(keys.user_pattern(user_id), user_id=user_id, own=True)
    else:
        await cache.delete(*data.stale_keys(user_id))
        if data.unused_pattern is not None:
            await cache.invalidate(data.unused_pattern(user_id), user_id=user_id, own=True)


async def invalidate_rows(cache: RedisCache, rows: Iterable[OutboxRow]) -> None:
    """Invalidate what rows of the outbox name."""
    for row in rows:
        await invalidate(cache, row.user_id, row.kind)
