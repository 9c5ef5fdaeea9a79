"""Changes made elsewhere: one listener per worker, in its main process."""

from __future__ import annotations

from cache import CacheSettings, get_redis_cache

from .settings import Settings
from .store.changes import ChangeListener, invalidate

_listeners: list[ChangeListener] = []  # kept for as long as the worker runs


def start_listening(settings: Settings) -> ChangeListener | None:
    """Begin, in the running loop, where there is a Supabase project and a cache to keep up with it."""
    if not (settings.supabase_url and settings.supabase_key and CacheSettings.from_env().enabled):
        return None
    listener = ChangeListener(settings.supabase_url, settings.supabase_key, _forget)
    _listeners.append(listener)
    listener.start()
    return listener


async def _forget(user_id: str, what: str) -> None:
    await invalidate(await get_redis_cache(), user_id, what)
