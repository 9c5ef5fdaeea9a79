"""Moves what is kept of a person under ids that they are no longer known by, such as a phone number."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, get_args

from ..runtime import get_runtime
from ..store import DataKind, StoreError

logger = logging.getLogger("companion")
DEADLINE: Final = 1.0
"""Seconds that the start of a conversation waits for it. What is not moved by then is moved at the next one."""


async def move_at_start_async(user_id: str, earlier: Sequence[str]) -> bool:
    """Move all that is kept under earlier ids of a person to the one they are known by now.

    The earlier ids leave the store and the caches, as those of an erased person do.

    Args:
        user_id: the id they are known by now.
        earlier: the ids they may have been known by.

    Returns:
        Whether something was moved by ``DEADLINE``. It is invalidated in the cache.
    """
    try:
        async with asyncio.timeout(DEADLINE):
            return await move_user_async(user_id, earlier)
    except (StoreError, TimeoutError) as problem:
        logger.warning("what is kept under earlier ids was not moved (%s): at the next call", type(problem).__name__)
        return False


async def move_user_async(user_id: str, earlier: Sequence[str]) -> bool:
    """As :func:`move_at_start_async`, without its deadline.

    Raises:
        StoreError: the store failed.
    """
    runtime = get_runtime()
    moved = await runtime.store.move_user(earlier, user_id)
    if moved:
        await runtime.outbox_relay.invalidate_written(user_id, *get_args(DataKind))
    for erasure in moved:  # one that is not delivered stays pending in the store
        await runtime.outbox_relay.erasures.deliver(erasure)
    return bool(moved)
