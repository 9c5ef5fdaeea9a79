"""The runtime starts and stops the listener for external changes, with the right cache."""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import suppress
from pathlib import Path
from weakref import ref

import pytest

from cache import get_redis_cache
from cache.embedded import EmbeddedRedis, redis_answers
from companion import Caller, get_user_profile_async, save_user_profile_async, use_caller
from companion.caching.change_listener import ChangeListener, OnChange
from companion.offline.llm import OfflineLLM
from companion.runtime import Runtime, acquire_runtime, close_runtime, get_runtime, release_runtime, set_runtime
from companion.settings import Settings
from companion.store import Context, SqliteStore, StoreError
from tests.real.redis.redis_server import NOWHERE, RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration


def project(home: Path) -> Settings:
    return Settings(
        home=home, models="offline", supabase_url=f"http://127.0.0.1:{NOWHERE}", supabase_key="sb_secret_test"
    )


async def test_no_listener_without_a_project_or_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Runtime(Settings(home=tmp_path, models="offline")).start_worker_services() is None
    monkeypatch.setenv("REDIS_ENABLED", "false")
    assert Runtime(project(tmp_path)).start_worker_services() is None


async def test_a_change_reaches_the_cache(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the runtime stops the listener when it is closed."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("CACHE_CONNECT_WAIT_MS", "5000")
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")
    listeners: list[Listener] = []

    class Listener(ChangeListener):
        def __init__(self, url: str, key: str, on_change: OnChange) -> None:
            super().__init__(url, key, on_change)
            self.on_change = on_change
            self.stopped = False
            listeners.append(self)

        async def stop(self) -> None:
            await super().stop()
            self.stopped = True

    monkeypatch.setattr("companion.runtime.runtime.ChangeListener", Listener)
    task = set_runtime(Runtime(project(tmp_path))).start_worker_services()
    assert task is not None
    await task
    (listener,) = listeners
    try:
        await (await get_redis_cache()).set("user:1:profile", "old")
        await listener.on_change("1", "profile")
        assert redis_server.cli("EXISTS", "user:1:profile") == 0
    finally:
        await close_runtime()
    assert listener.stopped


async def test_a_local_worker_invalidates_its_private_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    async def open_local_cache(runtime: Runtime) -> None:
        opened.append(runtime.settings.home)

    monkeypatch.setattr("companion.runtime.Runtime.open_local_cache", open_local_cache)
    task = set_runtime(Runtime(project(tmp_path))).start_worker_services(local=True)
    assert task is not None
    await task
    assert get_runtime().settings.home == tmp_path
    await close_runtime()
    assert opened == [tmp_path]


async def test_closing_before_the_listener_has_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def open_local_cache(_: Runtime) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("companion.runtime.Runtime.open_local_cache", open_local_cache)
    task = set_runtime(Runtime(project(tmp_path))).start_worker_services(local=True)
    assert task is not None
    await asyncio.sleep(0)
    await close_runtime()
    await until(task.cancelled)


async def test_the_main_process_of_a_local_worker_owns_the_private_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SQLite too: the process of the first conversation would end it for all the others."""
    runtime = set_runtime(Runtime(Settings(home=tmp_path, models="offline")))

    async def no_redis() -> bool:
        return False

    monkeypatch.setattr("companion.runtime.local_cache.redis_answers", no_redis)
    task = runtime.start_worker_services(local=True)
    assert task is not None
    await task
    private = EmbeddedRedis(tmp_path)
    url = await private.start()  # as a conversation does: it joins
    await private.stop()
    await until((await get_redis_cache()).health_check)
    assert (await get_redis_cache()).settings.url == url
    await close_runtime()


async def test_the_private_redis_ends_with_its_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after two conversations that began at once, and after one whose job ended while it began."""

    async def no_redis() -> bool:
        return False

    monkeypatch.setattr("companion.runtime.local_cache.redis_answers", no_redis)
    runtime = set_runtime(Runtime(Settings(home=tmp_path, models="offline")))
    await asyncio.gather(runtime.open_local_cache(), runtime.open_local_cache())
    url = (await get_redis_cache()).settings.url
    await until(lambda: redis_answers(url))
    await close_runtime()
    assert not await redis_answers(url)

    using = asyncio.Event()

    async def use(*_: object) -> None:
        using.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("companion.runtime.local_cache.use_redis_cache", use)
    runtime = set_runtime(Runtime(Settings(home=tmp_path, models="offline")))
    opening = asyncio.create_task(runtime.open_local_cache())
    await using.wait()
    await until(lambda: redis_answers(url))
    opening.cancel()
    await asyncio.wait({opening})
    await close_runtime()
    assert not await redis_answers(url)


async def test_a_process_says_once_that_it_has_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A console has two loops, and a runtime in each."""

    async def no_redis() -> bool:
        return False

    monkeypatch.setattr("companion.runtime.local_cache.redis_answers", no_redis)
    monkeypatch.setattr("cache.embedded.server.find_redis_server", lambda: None)
    for _ in range(2):
        runtime = set_runtime(Runtime(Settings(home=tmp_path, models="offline")))
        await runtime.open_local_cache()
        await close_runtime()
    lines = [record.getMessage() for record in caplog.records if record.name == "companion"]
    assert [line[:27] for line in lines] == ["Going on without a cache: n"]


async def test_a_runtime_that_conversations_use_is_not_replaced(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, models="offline")
    runtime = set_runtime(Runtime(settings))
    assert acquire_runtime() is set_runtime(runtime), "the same one is no other"
    with pytest.raises(RuntimeError, match="before the first attach"):
        set_runtime(Runtime(settings))
    assert get_runtime() is runtime
    await release_runtime()  # the last one closes it
    other = set_runtime(Runtime(settings))
    assert get_runtime() is other
    await close_runtime()


async def test_a_release_closes_no_runtime_but_its_own(tmp_path: Path) -> None:
    """A program may close one itself while a conversation has it, and begin another conversation."""
    settings = Settings(home=tmp_path, models="offline")
    first = set_runtime(Runtime(settings))
    acquire_runtime()
    await close_runtime()
    second = set_runtime(Runtime(settings))
    acquire_runtime()
    await release_runtime(first)
    assert (get_runtime(), second.conversations) == (second, 1)
    assert await second.store.get_profile("ada") is None, "it is open"
    await release_runtime(second)
    with pytest.raises(StoreError, match="closed"):
        await second.contexts.get("ada")


async def test_no_conversation_gets_another_model_than_the_one_that_was_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was closed with its runtime: the next attach is refused, where it had the environment's."""
    monkeypatch.setenv("REDIS_ENABLED", "false")
    monkeypatch.setenv("COMPANION_HOME", str(tmp_path))
    own = OfflineLLM()
    for _ in range(2):
        set_runtime(Runtime(model=own))
        assert acquire_runtime().model is own
        await release_runtime()
        with pytest.raises(RuntimeError, match="set another"):
            acquire_runtime()


async def test_what_comes_after_the_end_of_a_store_of_ones_own_reaches_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's store may be another: what is written late waits for a process with the right one."""
    monkeypatch.setenv("REDIS_ENABLED", "false")
    monkeypatch.setenv("COMPANION_HOME", str(tmp_path))
    set_runtime(Runtime(store=SqliteStore(tmp_path / "own.db")))
    acquire_runtime()
    await release_runtime()
    with use_caller(Caller("ada")):
        assert await get_user_profile_async() == ""
        await save_user_profile_async("Likes: chess")
    with pytest.raises(RuntimeError, match="set another"):
        acquire_runtime()
    assert not (tmp_path / "companion.db").exists()
    await close_runtime()  # of what has ended already: nothing

    with use_caller(Caller("ada")):
        runtime = set_runtime(Runtime(store=SqliteStore(tmp_path / "own.db")))
        assert await runtime.write_behind.spool_replay.replay() == 1
        assert await get_user_profile_async() == "Likes: chess"
    await close_runtime()


async def test_a_program_holds_its_runtime_between_conversations(tmp_path: Path) -> None:
    runtime = set_runtime(Runtime(Settings(home=tmp_path, models="offline")))
    acquire_runtime()
    for _ in range(2):
        assert acquire_runtime() is runtime
        await release_runtime()
    assert await runtime.store.get_profile("ada") is None  # it is open
    await release_runtime()
    with pytest.raises(StoreError, match="closed"):
        await get_runtime().store.get_profile("ada")


def test_a_loop_that_is_closed_keeps_no_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As each conversation of a console has one of its own."""
    monkeypatch.setenv("REDIS_ENABLED", "false")

    async def hold() -> ref[Runtime]:
        acquired = set_runtime(Runtime(Settings(home=tmp_path, models="offline")))
        acquire_runtime()
        with use_caller(Caller("ada")):
            await save_user_profile_async("Likes: chess")
        await release_runtime()
        return ref(acquired)

    first = asyncio.run(hold())
    asyncio.run(hold())
    gc.collect()
    assert first() is None


async def test_what_comes_after_the_end_of_the_environments_store_finds_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_ENABLED", "false")
    monkeypatch.setenv("COMPANION_HOME", str(tmp_path))
    for profile in ("Likes: chess", "Likes: tea"):
        acquire_runtime()
        await release_runtime()
        with use_caller(Caller("ada")):
            await save_user_profile_async(profile)
            assert await get_user_profile_async() == profile
    await close_runtime()


async def test_a_closed_runtime_opens_no_store(tmp_path: Path) -> None:
    """For work that comes late: what it opened, nothing would close."""
    runtime = Runtime(Settings(home=tmp_path, models="offline"))
    await runtime.close()
    with pytest.raises(StoreError, match="closed"):
        await runtime.contexts.get("1")
    assert os.listdir(tmp_path) == []


async def test_a_read_that_hangs_ends_with_its_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its readers have gone on without it by then."""
    monkeypatch.setenv("REDIS_ENABLED", "false")
    reading = asyncio.Event()

    class Hangs(SqliteStore):
        async def context(self, user_id: str, turns: int = 0) -> Context:
            reading.set()
            await asyncio.Event().wait()
            raise AssertionError

    runtime = set_runtime(Runtime(Settings(home=tmp_path, models="offline"), store=Hangs(tmp_path / "own.db")))
    acquire_runtime()
    read = asyncio.create_task(runtime.contexts.get("ada"))
    await reading.wait()
    await release_runtime(runtime)
    with pytest.raises(StoreError, match="context failed: closed"):
        await read
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_store_and_a_model_that_cannot_be_closed_leave_nothing_else_open(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They may be the program's own; the end of the job goes on."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("CACHE_CONNECT_WAIT_MS", "5000")
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")

    class Store(SqliteStore):
        async def close(self) -> None:
            await super().close()
            raise OSError("secret")

    class Model(OfflineLLM):
        async def aclose(self) -> None:
            raise RuntimeError("secret")

    own = Store(tmp_path / "own.db")
    set_runtime(Runtime(Settings(home=tmp_path, models="offline"), store=own, model=Model()))
    acquire_runtime()
    assert await own.get_profile("ada") is None
    cache = await get_redis_cache()
    await until(lambda: cache.connected)
    await release_runtime()
    assert not cache.connected
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "the model could not be closed (RuntimeError)",
        "the store could not be closed (OSError)",
    ]


async def test_a_store_that_neither_closes_nor_can_be_cancelled_holds_up_no_end(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setattr("companion.runtime.runtime.CLOSE_TIMEOUT", 0.05)
    monkeypatch.setattr("companion.caching.outbox_relay.CANCEL_TIMEOUT", 0.05)
    polling, over = asyncio.Event(), asyncio.Event()

    class Stubborn(SqliteStore):
        async def register_cache(self, cache_id: str, *, take_over: bool) -> bool:
            polling.set()
            while not over.is_set():
                with suppress(asyncio.CancelledError):
                    await over.wait()
            raise asyncio.CancelledError

        async def close(self) -> None:
            await super().close()
            await over.wait()

    runtime = set_runtime(Runtime(Settings(home=tmp_path, models="offline"), store=Stubborn(tmp_path / "own.db")))
    acquire_runtime()
    assert await runtime.store.get_profile("ada") is None
    cache = await get_redis_cache()
    await until(lambda: cache.connected)
    runtime.outbox_relay.start()
    await polling.wait()
    await release_runtime(runtime)
    assert not cache.connected
    assert "the store could not be closed in time" in caplog.text
    over.set()
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_a_conversation_that_begins_while_another_one_ends_keeps_its_cache(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it reads is not cancelled: it would greet without the profile."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("CACHE_CONNECT_WAIT_MS", "5000")
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")
    monkeypatch.setenv("COMPANION_HOME", str(tmp_path))
    loading, loaded = asyncio.Event(), asyncio.Event()

    async def load() -> str:
        loading.set()
        await loaded.wait()
        return "Likes: chess"

    class EndsSlowly(SqliteStore):
        async def close(self) -> None:
            ending.set()
            await loading.wait()
            await super().close()

    ending = asyncio.Event()
    set_runtime(Runtime(Settings(home=tmp_path, models="offline"), store=EndsSlowly(tmp_path / "companion.db")))
    acquire_runtime()
    cache = await get_redis_cache()
    closing = asyncio.create_task(release_runtime())
    await ending.wait()
    set_runtime(Runtime(Settings(home=tmp_path, models="offline")))
    acquire_runtime()
    reading = asyncio.create_task((await get_redis_cache()).get_or_load("user:1:profile", load, ttl=60))
    await closing
    loaded.set()
    assert await reading == "Likes: chess"
    assert cache.connected
    await release_runtime()
    assert not cache.connected
