"""What the conversations of one event loop stand on: settings, cache, store, and the model.

One per loop, because connections belong to the loop they were opened in. Conversations that share a loop share
it, and the last one to leave closes it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from weakref import WeakKeyDictionary

from livekit.agents import llm

from cache import CacheSettings, close_redis_cache, recall_with, retrieve_exception, use_redis_cache
from cache.embedded import EmbeddedRedis, EmbeddedRedisError, redis_answers

from .caching.consistency import ConsistencyWatch
from .caching.outbox_relay import OutboxRelay
from .settings import Settings
from .store import SqliteStore, Store
from .store.read_batching import ContextBatcher
from .voice.models import make_llm
from .writes.spool import Spool
from .writes.write_behind import WriteBehind

logger = logging.getLogger("companion")
_runtimes: WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = WeakKeyDictionary()


class Runtime:
    """Settings, store and model, made when first asked for.

    Args:
        settings: the environment's where None.
        store: instead of the one the settings name.
        model: instead of the one the settings name.
    """

    def __init__(
        self, settings: Settings | None = None, *, store: Store | None = None, model: llm.LLM[Any] | None = None
    ) -> None:
        self.settings = settings or Settings.from_env()
        self.conversations = 0
        watch = ConsistencyWatch(lambda: self.store, self.settings.watch_share)
        self.outbox_relay = OutboxRelay(lambda: self.store, watch)
        self.write_behind = WriteBehind(lambda: self.store, self.outbox_relay, Spool(self.settings.home))
        self.contexts = ContextBatcher(lambda user_id: self.store.context(user_id))
        self._store = store
        self._model = model
        self._model_is_given = model is not None
        self._embedded: EmbeddedRedis | None = None

    @property
    def store(self) -> Store:
        """The source of truth."""
        if self._store is None:
            self._store = open_store(self.settings)
        return self._store

    @property
    def model(self) -> llm.LLM[Any]:
        """The model that judges continuity, sums up, and talks to whoever comes first."""
        if self._model is None:
            self._model = make_llm(self.settings)
        return self._model

    def model_for_conversation(self) -> llm.LLM[Any]:
        """The model that talks in one conversation; to be given back with :meth:`done_with`.

        Conversations at the same time have one each, or each would hear what befalls the model of the others, and four
        errors in one of them would end them all. The first has the one that judges, and its open connection.
        """
        return self.model if self._model_is_given or self.conversations <= 1 else make_llm(self.settings)

    async def done_with(self, model: llm.LLM[Any]) -> None:
        """A conversation has ended that had ``model``."""
        if model is not self._model:
            closing = asyncio.create_task(model.aclose(), name="close-model")
            await asyncio.wait({closing}, timeout=1.0)
            retrieve_exception(closing) if closing.done() else closing.cancel()

    async def open_local_cache(self) -> None:
        """Where nobody chose a Redis and none answers at the default address, start a private one."""
        wanted = CacheSettings.from_env()
        free_choice = wanted.enabled and wanted.url_is_default
        if free_choice and self._embedded is None and not await redis_answers():
            await self._open_embedded()

    async def _open_embedded(self) -> None:
        private = EmbeddedRedis(self.settings.home)
        try:
            await use_redis_cache(await private.start())
            self._embedded = private
            self.outbox_relay.cache_is_private = bool(self.settings.supabase_url)  # SQLite is this machine's as well
        except EmbeddedRedisError as problem:
            logger.warning("Going on without a cache: %s", problem)
            await use_redis_cache(enabled=False)

    async def close(self) -> None:
        """Close what was opened."""
        await self.write_behind.close()
        await self.outbox_relay.close()
        await self.write_behind.finish_spool_updates()
        if self._model is not None:
            await self._model.aclose()
        if self._store is not None:
            await self._store.close()
        await close_redis_cache()
        if self._embedded is not None:
            await self._embedded.stop()


def open_store(settings: Settings) -> Store:
    """Supabase when it is configured, else SQLite in the companion's home. Opens nothing yet."""
    if settings.supabase_url and settings.supabase_key:
        from .store.supabase.store import SupabaseStore  # a second of imports that SQLite does not need

        return SupabaseStore(settings.supabase_url, settings.supabase_key)
    return SqliteStore(settings.home / "companion.db")


def get_runtime() -> Runtime:
    """The runtime of the running loop, made from the environment if there is none yet."""
    runtime = _runtimes.get(asyncio.get_running_loop())
    return set_runtime(Runtime()) if runtime is None else runtime


def set_runtime(runtime: Runtime) -> Runtime:
    """Let ``runtime`` be the running loop's."""
    _runtimes[asyncio.get_running_loop()] = runtime
    recall_with(runtime.outbox_relay.redeliver_recent)
    return runtime


async def leave_runtime() -> None:
    """One conversation has ended. The last one closes the loop's runtime."""
    runtime = _runtimes.get(asyncio.get_running_loop())
    if runtime is not None:
        runtime.conversations -= 1
        if runtime.conversations <= 0:
            await close_runtime()


async def close_runtime() -> None:
    """Close the running loop's runtime and cache. The next ``get_runtime`` makes a new one."""
    runtime = _runtimes.pop(asyncio.get_running_loop(), None)
    if runtime is not None:
        await runtime.close()
