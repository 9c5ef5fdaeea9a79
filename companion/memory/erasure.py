"""Erases and exports all that is known about a person, for the tools and the command line."""

from __future__ import annotations

from ..runtime import get_runtime
from ..store import PersonData
from ..text import storable


async def erase_user(user_id: str) -> bool:
    """Delete everything that is kept of a person: in the store, in every cache, in the spool.

    What conversations that are under way still write about the person is dropped. The erasure goes on if the caller is
    cancelled, and is completed by the next start if this process is killed.

    Args:
        user_id: the person.

    Returns:
        Whether all of it is done. False: the store or Redis does not answer, and the rest is done when it does.

    Raises:
        StoreError: neither the store nor the spool could be written, so nothing is done later either.
    """
    return await get_runtime().write_behind.eraser.erase(storable(user_id))


async def export_user(user_id: str) -> PersonData:
    """Read all that the store keeps of a person.

    Args:
        user_id: the person.

    Raises:
        StoreError: the store failed.
    """
    return await get_runtime().store.export_user(storable(user_id))
