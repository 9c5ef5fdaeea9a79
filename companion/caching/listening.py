"""Changes made elsewhere: one listener per worker, in its main process."""

from __future__ import annotations

import asyncio

from cache import CacheSettings, get_redis_cache

from ..runtime import get_runtime
from ..settings import Settings
from .change_listener import ChangeListener, invalidate

_listening: set[asyncio.Task[ChangeListener]] = set()  # kept for as long as the worker runs


def start_listening(settings: Settings, *, local: bool = False) -> asyncio.Task[ChangeListener] | None:
    """Begin, in the running loop, where there is a Supabase project and a cache to keep up with it.

    Args:
        settings: where the project is.
        local: the worker may use the private Redis of ``COMPANION_HOME``.

    Returns:
        The task that gives the listener; None where there is nothing to listen to.
    """
    if not (settings.supabase_url and settings.supabase_key and CacheSettings.from_env().enabled):
        return None
    task = asyncio.create_task(_listen(settings.supabase_url, settings.supabase_key, local), name="listen-elsewhere")
    _listening.add(task)
    return task


async def _listen(url: str, key: str, local: bool) -> ChangeListener:
    runtime = get_runtime()  # before the cache connects: it may have to ask what changed lately
    if local:
        await runtime.open_local_cache()
    listener = ChangeListener(url, key, _forget)
    listener.start()
    return listener


async def _forget(user_id: str, what: str) -> None:
    await invalidate(await get_redis_cache(), user_id, what)
