"""What the conversations of one event loop share: settings, cache, store, writes and the model."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from livekit.agents import llm

from cache import BackgroundTasks, CacheSettings, close_redis_cache, get_redis_cache

from ..caching import ChangeListener, ConsistencyWatch, OutboxRelay, invalidate
from ..settings import Settings
from ..store import ContextBatcher, SqliteStore, Store, StoreError
from ..voice.models import close_models, make_llm
from ..writes import Spool, WriteBehind, expire_turns
from .local_cache import LocalCache

logger = logging.getLogger("companion")
CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a store, or a model, may take to close: SQLite allows itself four, and a job has ten for its end."""
_CANCEL_TIMEOUT: Final = 1.0  # seconds: the client of a store may ignore a cancellation


class Runtime:
    """Composes settings, store, writes and model. Store and model are opened on first use.

    Args:
        settings: read from the environment where None.
        store: replaces the store that the settings choose.
        model: replaces the model that the settings choose.
    """

    def __init__(
        self, settings: Settings | None = None, *, store: Store | None = None, model: llm.LLM[Any] | None = None
    ) -> None:
        self.from_environment = settings is None and store is None and model is None
        """Whether the environment alone says what it has: then any other runtime made from it has the same."""
        self.settings = settings or Settings.from_env()
        self.conversations = 0
        """Conversations that have acquired this runtime."""
        self.judging: Counter[str] = Counter()
        """Users on whose next greeting a model is judging at the moment, and in how many calls."""
        self.reading_plans: Counter[str] = Counter()
        """Users whose next greeting is being chosen at the moment, and in how many calls."""
        watch = ConsistencyWatch(lambda: self.store, self.settings.watch_share)
        self.outbox_relay = OutboxRelay(lambda: self.store, watch)
        self.spool = Spool(self.settings.home)
        self.write_behind = WriteBehind(lambda: self.store, self.outbox_relay, self.spool)
        self.contexts = ContextBatcher(lambda user_id: self.store.context(user_id))
        self._store = store
        self._model = model
        self._model_is_given = model is not None
        self._model_talks = False
        self._local_cache = LocalCache(self.settings.home)
        self._listener: ChangeListener | None = None
        self._background = BackgroundTasks()
        self._closed = False

    @property
    def store(self) -> Store:
        """The source of truth.

        Raises:
            StoreError: the runtime was closed before it was needed: one opened now would never be closed.
        """
        if self._store is None:
            if self._closed:
                raise StoreError("open_store", "closed")
            self._store = open_store(self.settings)
        return self._store

    @property
    def model(self) -> llm.LLM[Any]:
        """The model that decides on follow-ups and summarises; it also talks in the first conversation."""
        if self._model is None:
            self._model = make_llm(self.settings)
        return self._model

    def acquire_model(self) -> llm.LLM[Any]:
        """The model that talks in one conversation; to be released with :meth:`release_model`.

        Concurrent conversations get a model each: an AgentSession subscribes to its model's errors, and closes after
        four of them, whichever conversation they came from. One conversation at a time gets :attr:`model`, whose
        connection is open already.
        """
        if self._model_talks and not self._model_is_given:
            return make_llm(self.settings)
        self._model_talks = True
        return self.model

    async def release_model(self, model: llm.LLM[Any]) -> None:
        """Close the ``model`` of a conversation, unless the runtime still uses it."""
        if model is self._model:
            self._model_talks = False
        else:
            await close_models(model)

    def in_background(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run what no conversation waits for, until the runtime is closed."""
        return self._background.spawn(work, name=name)

    async def open_local_cache(self) -> None:
        """Start a private Redis, unless ``REDIS_URL`` is set or a Redis answers at the default address."""
        if await self._local_cache.open() and self.settings.supabase_url:
            self.outbox_relay.use_private_cache()  # an SQLite store is private too: no other machine writes to it

    def start_worker_services(self, *, local: bool = False) -> asyncio.Task[None] | None:
        """Start what all conversations of a worker share, in its main process, until the runtime is closed.

        A local worker starts the private Redis here, so that it outlives the process of any conversation. With a
        Supabase project, the cache is invalidated for what other clients write to it. Old turns are deleted, where the
        settings limit their age.

        Args:
            local: whether the cache may be the private Redis of ``COMPANION_HOME``.

        Returns:
            The task that opens the cache and listens to changes; None if there is neither.
        """
        if (days := self.settings.retention_days) is not None:
            self._background.spawn(expire_turns(lambda: self.store, days), name="retention")
        has_project = bool(self.settings.supabase_url and self.settings.supabase_key)
        if not ((local or has_project) and CacheSettings.from_env().enabled):
            return None
        return self._background.spawn(self._start_worker_services(local), name="start-worker-services")

    async def _start_worker_services(self, local: bool) -> None:
        if local:
            try:
                await self.open_local_cache()
            except Exception as defect:  # changes must be listened to all the same, and this task has no waiter
                logger.error("the private Redis could not be started (%s)", type(defect).__name__)
        if (url := self.settings.supabase_url) and (key := self.settings.supabase_key):
            self._listener = ChangeListener(url, key, _invalidate)
            self._listener.start()

    async def close(self, successor: Callable[[], Runtime | None] = lambda: None) -> None:
        """Close everything that was opened.

        Args:
            successor: finds the runtime whose conversations use the loop's cache by the end of this one.
        """
        await self._background.cancel(timeout=_CANCEL_TIMEOUT)
        if self._listener is not None:
            await self._listener.stop()
        await self.write_behind.close()
        await self.outbox_relay.close()
        await self.write_behind.finish_spool_updates()
        if self._model is not None:
            await self._close_given("model", self._model.aclose())
        self._closed = True
        if self._store is not None:
            await self._close_given("store", self._store.close())
        await self.contexts.close()
        if (heir := successor()) is not None:
            heir._local_cache.take_over(self._local_cache)
            return
        await close_redis_cache()
        await self._local_cache.close()

    async def _close_given(self, what: str, closing: Coroutine[Any, Any, None]) -> None:
        """Close what may be the program's own: the cache is closed also where that fails or hangs."""
        task = self._background.spawn(closing, name=f"close-{what}")
        await asyncio.wait({task}, timeout=CLOSE_TIMEOUT)
        if not task.done():
            self._background.abandon(task)
            logger.error("the %s could not be closed in time", what)
        elif not task.cancelled() and (problem := task.exception()) is not None:
            logger.error("the %s could not be closed (%s)", what, type(problem).__name__)


async def _invalidate(user_id: str, kind: str) -> None:
    await invalidate(await get_redis_cache(), user_id, kind)


def open_store(settings: Settings) -> Store:
    """Supabase when it is configured, else SQLite in ``COMPANION_HOME``. Neither connects before its first use."""
    if settings.supabase_url and settings.supabase_key:
        from ..store import SupabaseStore  # takes a second to import, which SQLite users need not wait for

        return SupabaseStore(settings.supabase_url, settings.supabase_key)
    return SqliteStore(settings.home / "companion.db")
