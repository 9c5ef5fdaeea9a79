"""What the conversations of one event loop share: settings, cache, store, writes and the model.

There is one runtime per loop, because a connection belongs to the loop that opened it. Each conversation acquires the
runtime and releases it; the last release closes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from livekit.agents import llm

from cache import (
    BackgroundTasks,
    CacheSettings,
    close_redis_cache,
    get_redis_cache,
    recall_with,
    retrieve_exception,
    use_redis_cache,
)
from cache.embedded import EmbeddedRedis, EmbeddedRedisError, redis_answers

from .caching import ChangeListener, ConsistencyWatch, OutboxRelay, invalidate
from .settings import Settings
from .store import ContextBatcher, SqliteStore, Store, StoreError
from .voice.models import make_llm
from .writes import Spool, WriteBehind, expire_turns

logger = logging.getLogger("companion")
_runtimes: WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = WeakKeyDictionary()
_ended: WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = WeakKeyDictionary()  # not from the environment
_without_cache: set[str] = set()  # reasons that were logged; a console has two loops, and would log each twice


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
        self.from_environment = settings is None and store is None
        """Whether the environment alone says which store it has: then any other runtime made from it has the same."""
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
        self._embedded: EmbeddedRedis | None = None
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
            closing = asyncio.create_task(model.aclose(), name="close-model")
            await asyncio.wait({closing}, timeout=1.0)
            retrieve_exception(closing) if closing.done() else closing.cancel()

    def in_background(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run what no conversation waits for, until the runtime is closed."""
        return self._background.spawn(work, name=name)

    async def open_local_cache(self) -> None:
        """Start a private Redis, unless ``REDIS_URL`` is set or a Redis answers at the default address."""
        settings = CacheSettings.from_env()
        may_choose = settings.enabled and settings.url_is_default
        if may_choose and self._embedded is None and not await redis_answers():
            await self._open_embedded()

    async def _open_embedded(self) -> None:
        private = EmbeddedRedis(self.settings.home)
        try:
            await use_redis_cache(await private.start())
            self._embedded = private
            if self.settings.supabase_url:  # an SQLite store is private too: no other machine writes to it
                self.outbox_relay.use_private_cache()
        except EmbeddedRedisError as problem:
            if (reason := str(problem)) not in _without_cache:
                _without_cache.add(reason)
                logger.warning("Going on without a cache: %s", reason)
            await use_redis_cache(enabled=False)

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

    async def close(self) -> None:
        """Close everything that was opened."""
        await self._background.cancel()
        if self._listener is not None:
            await self._listener.stop()
        await self.write_behind.close()
        await self.outbox_relay.close()
        await self.write_behind.finish_spool_updates()
        if self._model is not None:
            await self._model.aclose()
        self._closed = True
        if self._store is not None:
            await self._store.close()
        successor = _runtimes.get(asyncio.get_running_loop())
        if successor is not None and successor is not self and successor.conversations > 0:
            # A conversation has begun meanwhile, with the cache of this loop: it closes it, and the server behind it.
            successor._embedded = successor._embedded or self._embedded
            return
        await close_redis_cache()
        if self._embedded is not None:
            await self._embedded.stop()


async def _invalidate(user_id: str, kind: str) -> None:
    await invalidate(await get_redis_cache(), user_id, kind)


def open_store(settings: Settings) -> Store:
    """Supabase when it is configured, else SQLite in ``COMPANION_HOME``. Neither connects before its first use."""
    if settings.supabase_url and settings.supabase_key:
        from .store import SupabaseStore  # takes a second to import, which SQLite users need not wait for

        return SupabaseStore(settings.supabase_url, settings.supabase_key)
    return SqliteStore(settings.home / "companion.db")


def get_runtime() -> Runtime:
    """The runtime of the running loop; a new one, from the environment, if there is none yet.

    Where the program has set one with a store of its own, what comes after its end gets that one, which is closed: it
    reads nothing, and what it writes is spooled. The store of the environment may be another.
    """
    loop = asyncio.get_running_loop()
    runtime = _runtimes.get(loop) or _ended.get(loop)
    return set_runtime(Runtime()) if runtime is None else runtime


def set_runtime(runtime: Runtime) -> Runtime:
    """Make ``runtime`` the running loop's. To be called before the loop's first conversation.

    Raises:
        RuntimeError: conversations have acquired another one: what they say would be in the stores of both.
    """
    loop = asyncio.get_running_loop()
    running = _runtimes.get(loop)
    if running is not None and running is not runtime and running.conversations > 0:
        raise RuntimeError("conversations of this event loop use another runtime: set one before the first attach")
    _runtimes[loop] = runtime
    _ended.pop(loop, None)
    recall_with(runtime.outbox_relay.recent.redeliver)
    return runtime


@asynccontextmanager
async def runtime_of_command() -> AsyncIterator[Runtime]:
    """The runtime of a command of the command line, in the ``with`` block.

    Raises:
        SettingsError: a setting is missing or unusable.
    """
    runtime = set_runtime(Runtime(Settings.load_with_home()))
    try:
        yield runtime
    finally:
        await close_runtime()


def acquire_runtime() -> Runtime:
    """The runtime of the running loop, for one conversation; to be released with :func:`release_runtime`.

    Raises:
        RuntimeError: the program has set one with a store of its own, and that has ended with its last conversation.
    """
    runtime = get_runtime()
    if _ended.get(asyncio.get_running_loop()) is runtime:
        raise RuntimeError(
            "the runtime that was set has ended with its last conversation: set another before this attach, or hold "
            "one with acquire_runtime for as long as the program runs"
        )
    runtime.conversations += 1
    return runtime


async def release_runtime() -> None:
    """Release what :func:`acquire_runtime` gave. The last release closes the loop's runtime."""
    runtime = _runtimes.get(asyncio.get_running_loop())
    if runtime is not None:
        runtime.conversations -= 1
        if runtime.conversations <= 0:
            await close_runtime()


async def close_runtime() -> None:
    """Close the running loop's runtime and cache; see :func:`get_runtime` for what comes later."""
    loop = asyncio.get_running_loop()
    runtime = _runtimes.pop(loop, None)
    if runtime is not None:
        if not runtime.from_environment:
            _ended[loop] = runtime
        await runtime.close()
