"""The caches of one process, one for each loop: pending invalidations are shared and delivered by any of them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from cache import RedisCache, close_redis_cache, get_redis_cache, keys, registry, use_redis_cache
from cache.coherence.pending import PendingQueue
from cache.coherence.pending_entries import PendingEntries
from cache.coherence.pending_pattern import PendingInvalidations
from tests.inside import engine_of, enqueue
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration
KEY = keys.profile("1")
Job = Callable[[RedisCache], Awaitable[Any]]


def caches() -> int:
    """Number of registered caches."""
    return len(registry._caches)  # private: the loops of others are seen from no loop


@pytest.mark.parametrize("politely", [True, False])
def test_a_scan_that_ended_with_its_loop_is_begun_by_another(
    own_redis: RedisServer, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, politely: bool
) -> None:
    monkeypatch.setattr("cache.invalidation.invalidator.SMALL", 0)
    monkeypatch.setattr("cache.invalidation.background_scan.ON_CLOSE", 0.0)
    lives, gone = jobs.start(own_redis.url), Jobs(own_redis.url)
    own_redis.cli("MSET", "user:5:by hand", "theirs")
    clears = gone.start()
    assert clears(lambda cache: cache.clear_user_cache("5")) == 0  # the loop stops here, and the scan with it
    gone.end(politely=politely)

    async def delivered(cache: RedisCache) -> None:
        await until(lambda: not cache.invalidations.undelivered and not own_redis.cli("EXISTS", "user:5:by hand"))

    lives(delivered)
    jobs.start()  # drops the cache of a loop that is closed


class Jobs:
    """Jobs of one process, each in a thread and a loop of its own, with the cache of that loop."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._runners: list[tuple[ThreadPoolExecutor, asyncio.Runner]] = []

    def start(self, url: str | None = None) -> Callable[[Job], Any]:
        """Start a job; returns a function that runs a coroutine function there, with the cache, and waits for it."""
        thread, runner = ThreadPoolExecutor(1), asyncio.Runner()
        self._runners.append((thread, runner))

        def do(job: Job) -> Any:
            async def with_cache() -> Any:
                return await job(await get_redis_cache())

            return thread.submit(runner.run, with_cache()).result(20)

        async def begin() -> None:
            cache = await use_redis_cache(url or self.url)
            await until(lambda: cache.connected)

        thread.submit(runner.run, begin()).result(20)
        return do

    def end(self, *, politely: bool = True) -> None:
        """End all jobs, with or without closing their caches."""
        for thread, runner in self._runners:
            if politely:
                thread.submit(runner.run, close_redis_cache()).result(20)
            thread.submit(runner.close).result(20)
            thread.shutdown()
        self._runners.clear()


@pytest.fixture
def jobs(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")
    jobs = Jobs(redis_server.url)
    yield jobs
    jobs.end()
    redis_server.cli("ACL", "DELUSER", "mute")
    assert not caches()


@pytest.fixture
def mute(redis_server: RedisServer) -> str:
    """The URL of a user without any rights on the same Redis."""
    redis_server.cli("ACL", "SETUSER", "mute", "on", ">pw", "~*", "&*", "+@all", "-unlink", "-del")
    return redis_server.url.replace("redis://", "redis://mute:pw@")


async def serves(cache: RedisCache) -> Any:
    return await cache.get(KEY)


@pytest.mark.parametrize(
    "invalidate",
    [lambda c: c.delete(KEY), lambda c: c.clear_user_cache("1"), lambda c: c.invalidate_pattern("user:*:profile")],
    ids=["key", "user", "pattern"],
)
def test_what_one_cannot_deliver_the_others_mask_and_deliver(
    redis_server: RedisServer, jobs: Jobs, mute: str, invalidate: Job
) -> None:
    one, another, third = jobs.start(mute), jobs.start(), jobs.start()
    redis_server.cli("SET", KEY, "old")
    assert another(serves) == third(serves) == "old"
    assert one(invalidate) == 0
    assert one(serves) is another(serves) is third(serves) is None

    async def delivered(cache: RedisCache) -> bool:
        await until(lambda: not cache.invalidations.undelivered)
        return not redis_server.cli("EXISTS", KEY)

    assert another(delivered)
    assert third(delivered)


@pytest.mark.parametrize(
    "invalidate",
    [lambda c: c.delete(KEY), lambda c: c.clear_user_cache("1"), lambda c: c.invalidate_pattern("user:*:profile")],
    ids=["key", "user", "pattern"],
)
async def test_what_is_pending_when_one_is_closed_the_next_delivers(
    own_redis: RedisServer, invalidate: Job, pending: dict[str, PendingEntries]
) -> None:
    cache = await use_redis_cache(own_redis.url)
    await until(lambda: cache.connected)
    assert await cache.set(KEY, "old", ttl=3600)
    own_redis.pause()
    await invalidate(cache)
    await close_redis_cache()
    own_redis.resume()
    cache = await use_redis_cache(own_redis.url)
    try:
        await until(lambda: cache.connected)
        assert await cache.get(KEY) is None
        await until(lambda: not cache.invalidations.undelivered)
        assert own_redis.cli("EXISTS", KEY) == 0
        await until(lambda: not PendingQueue(pending[cache.settings.safe_url]))
    finally:
        await close_redis_cache()


async def test_a_cache_made_during_closing_has_the_pending_invalidations(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = await use_redis_cache(own_redis.url)
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    own_redis.cli("SET", KEY, "old")
    engine_closes, go_on = engine_of(cache).close, asyncio.Event()

    async def slowly() -> None:
        await go_on.wait()
        await engine_closes()

    async def refused() -> None:
        """It stays pending."""

    monkeypatch.setattr(engine_of(cache), "close", slowly)
    monkeypatch.setattr(cache.invalidations, "redeliver", refused)
    enqueue(cache, PendingInvalidations((KEY,)))
    closing = asyncio.create_task(close_redis_cache())
    await until(lambda: not caches())
    newer = await get_redis_cache()
    try:
        await until(lambda: newer.connected)
        assert await newer.get(KEY) is None
        closing.cancel()  # the closing task is cancelled
        await asyncio.wait({closing})
        go_on.set()
        await until(lambda: not newer.invalidations.undelivered)
        assert own_redis.cli("EXISTS", KEY) == 0
    finally:
        await close_redis_cache()
        await engine_closes()


def test_it_is_obeyed_before_its_delivery(redis_server: RedisServer, jobs: Jobs, mute: str) -> None:
    one, another = jobs.start(mute), jobs.start(mute)
    redis_server.cli("SET", KEY, "old")
    one(lambda cache: cache.delete(KEY))
    assert another(serves) is None
    assert redis_server.cli("GET", KEY) == "old"


def test_a_value_that_could_not_be_stored_is_pending_in_all_caches(redis_server: RedisServer, jobs: Jobs) -> None:
    one, another = jobs.start(), jobs.start()
    redis_server.cli("SET", KEY, "old")

    async def set_while_off(cache: RedisCache) -> bool:
        cache.disable()
        return await cache.set(KEY, "new")

    assert one(set_while_off) is False
    assert another(serves) is None


def test_a_load_that_began_before_is_not_kept(redis_server: RedisServer, jobs: Jobs, mute: str) -> None:
    one, another = jobs.start(mute), jobs.start()

    async def loads(cache: RedisCache) -> tuple[Any, Any]:
        async def load() -> str:
            await asyncio.to_thread(one, lambda cache: cache.delete(KEY))
            return "old"

        return await cache.get_or_load(KEY, load, ttl=60), await cache.get(KEY)

    assert another(loads) == ("old", None)


def test_a_load_that_began_before_is_not_joined(redis_server: RedisServer, jobs: Jobs, mute: str) -> None:
    one, another = jobs.start(mute), jobs.start()

    async def loads(cache: RedisCache) -> tuple[Any, Any]:
        began, go_on = asyncio.Event(), asyncio.Event()

        async def old() -> str:
            began.set()
            await go_on.wait()
            return "old"

        async def new() -> str:
            return "new"

        first = asyncio.create_task(cache.get_or_load(KEY, old, ttl=60))
        await began.wait()
        await asyncio.to_thread(one, lambda cache: cache.delete(KEY))
        second = await cache.get_or_load(KEY, new, ttl=60)
        go_on.set()
        return await first, second

    assert another(loads) == ("old", "new")


def test_a_cache_that_comes_later_knows_what_is_pending_too(redis_server: RedisServer, jobs: Jobs, mute: str) -> None:
    one = jobs.start(mute)
    redis_server.cli("SET", KEY, "old")
    one(lambda cache: cache.delete(KEY))
    came, done = Event(), Event()

    async def lives(_: RedisCache) -> None:
        await asyncio.to_thread(came.wait, 20)
        done.set()

    with ThreadPoolExecutor(1) as beside:  # its loop keeps running, as in a job
        living = beside.submit(one, lives)
        late = jobs.start()
        came.set()
        living.result(20)

    async def delivered(cache: RedisCache) -> Any:
        await until(lambda: not redis_server.cli("EXISTS", KEY))
        return await cache.get(KEY)

    assert late(delivered) is None


def test_another_redis_hears_nothing(redis_server: RedisServer, own_redis: RedisServer, jobs: Jobs, mute: str) -> None:
    one, elsewhere, other_database = jobs.start(mute), jobs.start(own_redis.url), jobs.start(f"{jobs.url[:-1]}1")
    own_redis.cli("SET", KEY, "theirs")
    one(lambda cache: cache.delete(KEY))

    async def debts(cache: RedisCache) -> tuple[str, ...]:
        return cache.invalidations.pending.keys  # patterns of earlier tests may be pending too

    assert one(debts) == (KEY,)
    assert elsewhere(debts) == other_database(debts) == ()
    assert elsewhere(serves) == "theirs"


def test_a_loop_closed_with_its_cache_open_is_dropped(redis_server: RedisServer, jobs: Jobs, mute: str) -> None:
    gone = Jobs(jobs.url)
    left = gone.start()

    async def loop(cache: RedisCache) -> weakref.ref[asyncio.AbstractEventLoop]:
        return weakref.ref(asyncio.get_running_loop())

    seen = left(loop)
    gone.end(politely=False)
    one = jobs.start(mute)
    assert one(lambda cache: cache.delete(KEY)) == 0
    assert caches() == 1
    del left, gone
    gc.collect()
    assert seen() is None
