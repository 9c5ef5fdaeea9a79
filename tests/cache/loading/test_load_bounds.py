"""Loads that end: time-outs, loaders that ask for their own key, failures, and who waits how long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cache import LoadCycle, LoadTimeout, RedisCache, keys
from cache.loading import lease
from cache.loading.singleflight import Singleflight
from tests.cache.loading.clock import timed
from tests.cache.loading.loader import Loader
from tests.inside import filler_of
from tests.real.redis.redis_server import NOWHERE, RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration
KEY = keys.profile("123")
Nested = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


@pytest.fixture
async def pair(redis_server: RedisServer, connect: Any) -> list[RedisCache]:
    """Two caches, as in two processes."""
    return [await connect(redis_server.url, ttl_spread=0) for _ in range(2)]


@pytest.fixture
def without_redis(make_cache: Any) -> RedisCache:
    cache: RedisCache = make_cache(f"redis://127.0.0.1:{NOWHERE}/0", connect_wait=0.1)
    return cache


class Deaf(Loader):
    """A loader that outlasts its cancellation until it is released."""

    async def __call__(self) -> Any:
        while not self.gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.gate.wait()
        return "too late"


# -- a loader that does not end --------------------------------------------------------------------------


@pytest.mark.parametrize("redis", [True, False], ids=["with Redis", "Redis away"])
@pytest.mark.parametrize("obeys", [True, False], ids=["cancelled", "deaf"])
async def test_a_loader_that_does_not_end_is_cancelled_and_logged_once(
    pair: list[RedisCache],
    without_redis: RedisCache,
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    redis: bool,
    obeys: bool,
) -> None:
    cache = pair[0] if redis else without_redis
    stuck = Loader(held=True) if obeys else Deaf(held=True)
    calls = [cache.get_or_load(KEY, stuck, ttl=60, load_timeout=0.1) for _ in range(5)]
    outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
    assert {type(outcome) for outcome in outcomes} == {LoadTimeout}
    assert isinstance(outcomes[0], TimeoutError)
    assert [record.levelname for record in caplog.records if "did not end" in record.message] == ["WARNING"]
    assert "123" not in caplog.text
    assert await cache.get_or_load(KEY, Loader(), ttl=60) == "loaded"
    if obeys:
        assert (stuck.calls, stuck.ended) == (1, 1)
    stuck.gate.set()
    if redis:
        assert redis_server.cli("GET", KEY) == "loaded"


async def test_waiters_in_other_processes_go_on(pair: list[RedisCache], redis_server: RedisServer) -> None:
    stuck, other = Loader(held=True), Loader("from the other")
    leading = asyncio.create_task(pair[0].get_or_load(KEY, stuck, ttl=60, load_timeout=0.3))
    await stuck.started.wait()
    waiting = [asyncio.create_task(pair[1].get_or_load(KEY, other, ttl=60)) for _ in range(3)]
    await until(lambda: KEY.encode() in filler_of(pair[1]).waiters.events)
    assert await asyncio.gather(*waiting) == ["from the other"] * 3
    with pytest.raises(LoadTimeout):
        await leading
    assert (other.calls, redis_server.cli("GET", KEY)) == (1, "from the other")


async def test_a_caller_waits_for_others_no_longer_than_for_its_own(
    pair: list[RedisCache], redis_server: RedisServer
) -> None:
    stuck = Loader("kept", held=True)
    leading = asyncio.create_task(pair[0].get_or_load(KEY, stuck, ttl=60))
    await stuck.started.wait()
    assert await pair[1].get_or_load(KEY, Loader("its own"), ttl=60, load_timeout=0.2) == "its own"
    assert redis_server.cli("EXISTS", KEY) == 0
    stuck.gate.set()
    assert await leading == "kept"
    assert redis_server.cli("GET", KEY) == "kept"


@pytest.mark.parametrize("stale_for", [0, 60])
async def test_a_refresh_that_hangs_ends_too(
    pair: list[RedisCache], redis_server: RedisServer, caplog: pytest.LogCaptureFixture, stale_for: int
) -> None:
    """Its lease was renewed for ever: once the value had expired, every caller of every process hung."""
    stuck, terms = Loader(held=True), {"ttl": 60, "stale_for": stale_for}
    await pair[0].get_or_load(KEY, Loader("old"), **terms)
    redis_server.cli("PEXPIRE", KEY, 20_000)
    assert await pair[0].get_or_load(KEY, stuck, refresh_after=30, load_timeout=0.3, **terms) == "old"
    await stuck.started.wait()
    redis_server.cli("DEL", KEY)
    answers = await asyncio.gather(*(cache.get_or_load(KEY, Loader("new"), **terms) for cache in pair))
    assert set(answers) <= {"new", "old"}
    if not stale_for:
        assert set(answers) == {"new"}
    await until(lambda: stuck.ended)
    assert caplog.text.count("did not end") == 1
    assert "a loader failed" not in caplog.text


async def test_a_load_that_ends_the_fleet_serves_the_last_good_value(
    pair: list[RedisCache], redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await pair[0].get_or_load(KEY, Loader("good"), ttl=60, stale_for=60)
    redis_server.cli("DEL", KEY)
    stuck = Loader(held=True)
    call = pair[0].get_or_load(KEY, stuck, ttl=60, stale_for=60, load_timeout=0.4)
    assert await call == "good"
    await until(lambda: stuck.ended)
    assert caplog.text.count("\n") == caplog.text.count("did not end") == 1


# -- a loader that asks for its own key ------------------------------------------------------------------


async def _directly(ask: Callable[[], Awaitable[Any]]) -> Any:
    return await ask()


async def _in_a_task(ask: Callable[[], Awaitable[Any]]) -> Any:
    async def deeper() -> Any:
        return await asyncio.create_task(_directly(ask))

    return (await asyncio.gather(asyncio.create_task(deeper())))[0]


@pytest.mark.parametrize("how", [_directly, _in_a_task], ids=["directly", "in a task"])
@pytest.mark.parametrize("ring", [1, 2, 5])
@pytest.mark.parametrize("redis", [True, False], ids=["with Redis", "Redis away"])
async def test_a_ring_of_keys_raises_at_once(
    pair: list[RedisCache], without_redis: RedisCache, redis: bool, ring: int, how: Nested
) -> None:
    cache = pair[0] if redis else without_redis

    def ask(n: int) -> Awaitable[Any]:
        return cache.get_or_load(f"k{n % ring}", lambda: how(lambda: ask(n + 1)), ttl=60, stale_for=60)

    with pytest.raises(LoadCycle, match="asked for the key that it loads"):
        await asyncio.wait_for(ask(0), 5)
    assert not filler_of(cache).loads
    for n in range(ring):
        assert await cache.get_or_load(f"k{n}", Loader(n), ttl=60) == n


async def test_two_loads_that_wait_for_each_other_raise(pair: list[RedisCache]) -> None:
    """Two callers begin at different keys of a ring, so neither load is inside of the other."""
    cache, both = pair[0], asyncio.Barrier(3)

    async def load(n: int) -> Any:
        await both.wait()
        return await cache.get_or_load(f"k{(n + 1) % 3}", lambda: load((n + 1) % 3), ttl=60)

    calls = [cache.get_or_load(f"k{n}", lambda n=n: load(n), ttl=60) for n in range(3)]  # type: ignore[misc]  # a default
    outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
    assert {type(outcome) for outcome in outcomes} == {LoadCycle}
    assert await cache.get_or_load("k0", Loader("free"), ttl=60) == "free"


async def test_a_ring_through_another_cache_raises_and_through_another_process_ends(
    pair: list[RedisCache], connect: Any, redis_server: RedisServer
) -> None:
    elsewhere = await connect(redis_server.url.replace("127.0.0.1", "localhost"))  # as in another process

    async def ring(one: RedisCache, other: RedisCache, names: tuple[str, str], load_timeout: float) -> set[Any]:
        both = asyncio.Barrier(2)

        def ask(cache: RedisCache, name: str) -> Awaitable[Any]:
            return cache.get_or_load(name, lambda: load(cache, name), ttl=60, load_timeout=load_timeout)

        async def load(cache: RedisCache, name: str) -> Any:
            await both.wait()
            return await ask(other if cache is one else one, names[name == names[0]])

        asked = [ask(one, names[0]), ask(other, names[1])]
        return {type(outcome) for outcome in await asyncio.gather(*asked, return_exceptions=True)}

    async with asyncio.timeout(10):
        assert await ring(*pair, ("k0", "k1"), 60) == {LoadCycle}
        assert await ring(pair[0], elsewhere, ("k2", "k3"), 0.3) <= {LoadCycle, LoadTimeout}


@pytest.mark.parametrize("how", ["to_thread", "run_coroutine_threadsafe"])
async def test_a_loader_that_asks_in_a_thread_raises(redis_server: RedisServer, connect: Any, how: str) -> None:
    """A cache of the same process, in a loop of its own."""
    cache, loop = await connect(redis_server.url), asyncio.get_running_loop()

    async def ask_elsewhere() -> Any:
        other = RedisCache(redis_server.url)
        try:
            return await other.get_or_load(KEY, Loader("other"), ttl=60)
        finally:
            await other.close()

    async def own() -> Any:
        if how == "to_thread":
            return await asyncio.to_thread(asyncio.run, ask_elsewhere())
        asking = cache.get_or_load(KEY, Loader("inner"), ttl=60)
        return await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(asking, loop).result(5))

    with pytest.raises(LoadCycle):
        await asyncio.wait_for(cache.get_or_load(KEY, own, ttl=60), 8)


async def test_a_hit_inside_its_own_load_raises_too(pair: list[RedisCache], redis_server: RedisServer) -> None:
    await pair[0].get_or_load(KEY, Loader("old"), ttl=60)
    redis_server.cli("PEXPIRE", KEY, 20_000)
    seen: list[BaseException] = []

    async def own() -> Any:
        try:
            return await pair[0].get_or_load(KEY, own, ttl=60)
        except LoadCycle as problem:
            seen.append(problem)
            return "new"

    assert await pair[0].get_or_load(KEY, own, ttl=60, refresh_after=30) == "old"
    await until(lambda: redis_server.cli("GET", KEY) == "new")
    assert len(seen) == 1


async def test_what_is_no_ring_is_loaded(pair: list[RedisCache], connect: Any, redis_server: RedisServer) -> None:
    cache, left_behind = pair[0], asyncio.Event()
    elsewhere = await connect(f"{redis_server.url[:-1]}1")
    tasks: list[asyncio.Task[Any]] = []

    async def later() -> Any:
        await left_behind.wait()
        return await cache.get_or_load(KEY, Loader("again"), ttl=60)

    async def load() -> Any:
        tasks.append(asyncio.create_task(later()))
        shared = [cache.get_or_load("shared", Loader("s", held=False), ttl=60) for _ in range(3)]
        return [*await asyncio.gather(*shared), await elsewhere.get_or_load(KEY, Loader("theirs"), ttl=60)]

    assert await cache.get_or_load(KEY, load, ttl=60) == ["s", "s", "s", "theirs"]
    await cache.delete(KEY)
    left_behind.set()
    assert await tasks[0] == "again"


# -- after a failed load ---------------------------------------------------------------------------------


async def test_after_a_failure_the_last_good_value_is_served_at_once(
    pair: list[RedisCache], redis_server: RedisServer
) -> None:
    terms = {"ttl": 60, "stale_for": 60, "retry_after": 30.0}
    await pair[0].get_or_load(KEY, Loader("good"), **terms)
    redis_server.cli("DEL", KEY)
    failing = Loader(OSError("down"))
    assert await pair[0].get_or_load(KEY, failing, **terms) == "good"
    await until(lambda: redis_server.cli("GET", keys.lease(KEY)) == "failed")
    assert 0 < redis_server.cli("PTTL", keys.lease(KEY)) <= 30_000
    for cache in pair * 3:
        assert await cache.get_or_load(KEY, failing, **terms) == "good"
    assert failing.calls == 1
    redis_server.cli("PEXPIRE", keys.lease(KEY), 1)
    await until(lambda: not redis_server.cli("EXISTS", keys.lease(KEY)))
    assert await pair[1].get_or_load(KEY, Loader("recovered"), **terms) == "recovered"
    await pair[0].delete(KEY)
    with pytest.raises(OSError, match="down"):
        await pair[0].get_or_load(KEY, failing, **terms)


@pytest.mark.parametrize("how", ["delete", "set", "invalidate_pattern", "clear_user_cache"])
async def test_an_invalidation_ends_the_pause(pair: list[RedisCache], redis_server: RedisServer, how: str) -> None:
    terms = {"ttl": 60, "stale_for": 60, "retry_after": 30.0}
    await pair[0].get_or_load(KEY, Loader("good"), **terms)
    redis_server.cli("DEL", KEY)
    assert await pair[0].get_or_load(KEY, Loader(OSError("down")), **terms) == "good"
    await until(lambda: redis_server.cli("GET", keys.lease(KEY)) == "failed")
    await {
        "delete": lambda: pair[1].delete(KEY),
        "set": lambda: pair[1].set(KEY, "new", ttl=60),
        "invalidate_pattern": lambda: pair[1].invalidate_pattern("user:*"),
        "clear_user_cache": lambda: pair[1].clear_user_cache("123"),
    }[how]()
    assert await pair[0].get_or_load(KEY, Loader("new"), **terms) == "new"


async def test_without_a_last_good_value_one_attempt_is_made_at_a_time(pair: list[RedisCache]) -> None:
    running = most = calls = 0

    async def failing() -> None:
        nonlocal running, most, calls
        running, calls = running + 1, calls + 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        raise OSError("down")

    asked = [cache.get_or_load(KEY, failing, ttl=60) for cache in pair for _ in range(10)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {OSError}
    assert (most, calls) == (1, 2)
    with pytest.raises(OSError, match="down"):  # no pause, and no wait for the failed load's lease
        await pair[0].get_or_load(KEY, failing, ttl=60)


@pytest.mark.parametrize("wrong", [Loader(object()), LoadCycle])
async def test_a_programming_error_is_seen_by_every_caller(
    pair: list[RedisCache], redis_server: RedisServer, wrong: Any
) -> None:
    await pair[0].get_or_load(KEY, Loader("good"), ttl=60, stale_for=60)
    redis_server.cli("DEL", KEY)

    async def own() -> Any:
        return await pair[0].get_or_load(KEY, own, ttl=60, stale_for=60)

    loader = own if wrong is LoadCycle else wrong
    for _ in range(2):
        with pytest.raises((TypeError, LoadCycle)):
            await pair[0].get_or_load(KEY, loader, ttl=60, stale_for=60)


# -- how long a caller waits before it gets the last good value -------------------------------------------


@pytest.mark.timed
async def test_patience_counts_from_the_start_of_the_load(
    pair: list[RedisCache], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.2)
    monkeypatch.setattr(lease, "RENEW_EVERY", 0.4)
    terms = {"ttl": 60, "stale_for": 60}
    await pair[0].get_or_load(KEY, Loader("good"), **terms)
    redis_server.cli("DEL", KEY)
    slow = Loader(held=True)
    began = time.perf_counter()
    await pair[0].get_or_load(KEY, slow, **terms)
    assert time.perf_counter() - began >= lease.SLOW - 0.01
    for _ in range(4):  # across renewals of the lease
        for cache in pair:
            answer, took = await timed(cache.get_or_load(KEY, slow, **terms))
            assert (answer, took < lease.SLOW / 2) == ("good", True)
        await asyncio.sleep(0.2)
    assert slow.calls == 1
    slow.gate.set()
    await until(lambda: redis_server.cli("GET", KEY) == "loaded")


@pytest.mark.timed
async def test_who_joins_a_young_load_waits_the_rest(
    pair: list[RedisCache], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SLOW", 0.6)
    monkeypatch.setattr("cache.loading.fill.SLOW", 0.6)
    terms = {"ttl": 60, "stale_for": 60}
    await pair[0].get_or_load(KEY, Loader("good"), **terms)
    redis_server.cli("DEL", KEY)
    slow = Loader(held=True)
    began = time.perf_counter()
    first = asyncio.create_task(pair[0].get_or_load(KEY, slow, **terms))
    await slow.started.wait()
    await asyncio.sleep(0.3)
    answers = await asyncio.gather(*(timed(cache.get_or_load(KEY, slow, **terms)) for cache in pair))
    assert [answer for answer, _ in answers] == ["good", "good"]
    assert all(0.05 < took < 0.5 for _, took in answers)
    await first
    assert time.perf_counter() - began > 0.55
    slow.gate.set()
    await until(lambda: slow.ended)


async def test_who_takes_the_last_good_value_waits_for_no_load_of_who_does_not(
    pair: list[RedisCache], redis_server: RedisServer
) -> None:
    await pair[0].get_or_load(KEY, Loader("good"), ttl=60, stale_for=60)
    redis_server.cli("DEL", KEY)
    slow = Loader("newer", held=True)
    first = asyncio.create_task(pair[0].get_or_load(KEY, slow, ttl=60))
    await slow.started.wait()
    assert await pair[0].get_or_load(KEY, Loader("not asked"), ttl=60, stale_for=60) == "good"
    slow.gate.set()
    assert await first == "newer"


# -- one flight after another ------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["value", OSError("down")], ids=["loads", "fails"])
async def test_a_finished_load_is_not_joined(make_cache: Any, outcome: Any) -> None:
    """With an eager task factory (Python 3.12) and no Redis, a whole load may run within one turn of the loop."""
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory", None))
    cache, loader = make_cache("redis://127.0.0.1:1/0", enabled=False), Loader(outcome)
    for _ in range(3):
        answers = await asyncio.gather(cache.get_or_load(KEY, loader, ttl=60), return_exceptions=True)
        assert answers == [outcome]
    assert loader.calls == 3
    flights, runs = Singleflight(), []

    async def run() -> int:
        runs.append(None)
        return len(runs)

    assert [await flights.join(KEY, run) for _ in range(3)] == [1, 2, 3]


# -- copies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("redis", [True, False], ids=["with Redis", "Redis away"])
async def test_every_caller_gets_a_copy_and_what_a_later_reader_gets(
    pair: list[RedisCache], without_redis: RedisCache, redis: bool
) -> None:
    cache = pair[0] if redis else without_redis
    value = ({"tags": ["a"]}, (1, 2))
    loader = Loader(value, held=True)
    calls = [asyncio.create_task(cache.get_or_load(KEY, loader, ttl=60)) for _ in range(3)]
    await loader.started.wait()
    loader.gate.set()
    first, *others = await asyncio.gather(*calls)
    assert first == [{"tags": ["a"]}, [1, 2]]
    first[0]["tags"].append("b")
    first[1].append(3)
    assert others == [[{"tags": ["a"]}, [1, 2]]] * 2
    assert value == ({"tags": ["a"]}, (1, 2))
    if redis:
        assert await cache.get(KEY) == others[0]


async def test_so_it_is_with_the_last_good_value(pair: list[RedisCache], redis_server: RedisServer) -> None:
    await pair[0].get_or_load(KEY, Loader(["good"]), ttl=60, stale_for=60)
    redis_server.cli("DEL", KEY)
    failing = Loader(OSError("down"), held=True)
    calls = [asyncio.create_task(pair[0].get_or_load(KEY, failing, ttl=60, stale_for=60)) for _ in range(2)]
    await failing.started.wait()
    failing.gate.set()
    one, another = await asyncio.gather(*calls)
    one.append("changed")
    assert another == ["good"]


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"load_timeout": 0}, ValueError),
        ({"load_timeout": -1.0}, ValueError),
        ({"load_timeout": float("inf")}, ValueError),
        ({"load_timeout": float("nan")}, ValueError),
        ({"load_timeout": None}, TypeError),
        ({"load_timeout": "1"}, TypeError),
        ({"retry_after": -1}, ValueError),
        ({"retry_after": True}, TypeError),
    ],
)
async def test_bounds_are_checked_with_and_without_redis(
    pair: list[RedisCache], without_redis: RedisCache, connected: bool, arguments: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await (pair[0] if connected else without_redis).get_or_load(KEY, Loader(), ttl=60, **arguments)
