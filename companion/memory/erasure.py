"""Erases and exports all that is known about a person, for the tools and the command line."""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime import get_runtime
from ..store import PersonData
from ..text import storable


async def erase_user(user_id: str, earlier: Sequence[str] = (), *, wait: float | None = None) -> bool:
    """Delete everything that is kept of a person: in the store, in every cache, in the spool.

    What conversations that are under way still write about the person is dropped. The erasure goes on if the caller is
    cancelled, and is completed by the next start if this process is killed.

    Args:
        user_id: the person.
        earlier: ids under which something of them may still be kept. It goes as well.
        wait: seconds to wait for it; None until the store and Redis have answered, or failed to.

    Returns:
        Whether all of it is done by then. If not, it goes on, or is done when store and Redis answer.

    Raises:
        StoreError: neither the store nor the spool could be written, so nothing is done later either.
    """
    eraser = get_runtime().write_behind.eraser
    return await eraser.erase(storable(user_id), [storable(each) for each in earlier], wait)


async def export_user(user_id: str) -> PersonData:
    """Read all that the store keeps of a person.

    Args:
        user_id: the person.

    Raises:
        StoreError: the store failed.
    """
    return await get_runtime().store.export_user(storable(user_id))
