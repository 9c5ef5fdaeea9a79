"""get_or_load in one process: singleflight, values, waiters, and TTLs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache import RedisCache, UnserialisableValue, keys
from cache.loading import lease
from tests.cache.loading.clock import timed
from tests.cache.loading.loader import Loader
from tests.inside import engine_of, filler_of
from tests.real.redis.redis_server import NOWHERE, RedisServer
from tests.wait import initialised, until

pytestmark = [pytest.mark.integration, pytest.mark.every_deployment]
KEY = keys.profile("123")


async def test_200_tasks_load_once(cache: RedisCache, redis_server: RedisServer) -> None:
    loader = Loader({"name": "Ada"}, held=True)
    tasks = [asyncio.create_task(cache.get_or_load(KEY, loader, ttl=60)) for _ in range(200)]
    await loader.started.wait()
    tasks += [asyncio.create_task(cache.get_or_load(KEY, loader, ttl=60)) for _ in range(50)]
    await asyncio.sleep(0)
    loader.gate.set()
    assert await asyncio.gather(*tasks) == [{"name": "Ada"}] * 250
    assert loader.calls == 1
    assert redis_server.cli("GET", KEY) == '{"name":"Ada"}'
    assert redis_server.cli("EXISTS", keys.lease(KEY)) == 0
    stats = await cache.get_stats()
    assert (stats["cache_hits"], stats["cache_misses"]) == (0, 250)


async def test_a_hit_loads_nothing_and_returns_a_copy(cache: RedisCache) -> None:
    loader = Loader()
    await cache.set(KEY, {"tags": ["a"]}, ttl=60)
    first, *others = await asyncio.gather(*(cache.get_or_load(KEY, loader, ttl=60) for _ in range(20)))
    assert loader.calls == 0
    first["tags"].append("b")
    assert others == [{"tags": ["a"]}] * 19
    stats = await cache.get_stats()
    assert (stats["cache_hits"], stats["cache_misses"]) == (20, 0)


async def test_two_keys_are_two_loads(cache: RedisCache) -> None:
    one, two = Loader(1, held=True), Loader(2, held=True)
    tasks = [asyncio.create_task(cache.get_or_load(f"k{n}", each, ttl=60)) for n, each in enumerate((one, two))]
    await asyncio.gather(one.started.wait(), two.started.wait())
    one.gate.set()
    two.gate.set()
    assert await asyncio.gather(*tasks) == [1, 2]


# -- cancellation ----------------------------------------------------------------------------------------


async def test_a_cancelled_caller_does_not_cancel_others(cache: RedisCache) -> None:
    loader = Loader(held=True)
    first, second = (asyncio.create_task(cache.get_or_load(KEY, loader, ttl=60)) for _ in range(2))
    await loader.started.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    loader.gate.set()
    assert await second == "loaded"
    assert loader.calls == 1


async def test_the_last_one_cancels_the_load_and_frees_the_lease(cache: RedisCache, redis_server: RedisServer) -> None:
    loader = Loader(held=True)
    tasks = [asyncio.create_task(cache.get_or_load(KEY, loader, ttl=60)) for _ in range(3)]
    await loader.started.wait()
    assert redis_server.cli("EXISTS", keys.lease(KEY)) == 1
    for task in tasks:
        task.cancel()
    await until(lambda: redis_server.cli("EXISTS", keys.lease(KEY)) == 0, 1)
    assert (loader.calls, loader.ended) == (1, 1)
    assert redis_server.cli("EXISTS", KEY) == 0


@pytest.mark.timed
async def test_a_call_during_a_cancelled_load_does_not_wait_for_its_lease(cache: RedisCache) -> None:
    """The lease is released over our own connection: the server must send the push to it too."""
    winding_up = asyncio.Event()

    async def slow_to_go() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            winding_up.set()
            await asyncio.sleep(0.1)
        return "never"

    task = asyncio.create_task(cache.get_or_load(KEY, slow_to_go, ttl=60))
    await until(lambda: task.get_coro() is not None and KEY in filler_of(cache).loads)
    await until(lambda: filler_of(cache).background or filler_of(cache).loads)
    await asyncio.sleep(0.05)
    task.cancel()
    await winding_up.wait()
    value, took = await timed(cache.get_or_load(KEY, Loader(), ttl=60))
    assert value == "loaded"
    assert took < 0.5


# -- what is kept ----------------------------------------------------------------------------------------


async def test_the_loaders_exception_reaches_every_caller_and_nothing_is_kept(
    cache: RedisCache, redis_server: RedisServer
) -> None:
    loader = Loader(LookupError("no such user"), held=True)
    tasks = [asyncio.create_task(cache.get_or_load(KEY, loader, ttl=60)) for _ in range(5)]
    await loader.started.wait()
    loader.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["no such user"] * 5
    assert {type(outcome) for outcome in outcomes} == {LookupError}
    await until(lambda: redis_server.cli("EXISTS", KEY, keys.lease(KEY), keys.stale(KEY)) == 0, 1)
    loader.value = "later"
    assert await cache.get_or_load(KEY, loader, ttl=60) == "later"


async def test_none_is_kept_only_for_its_own_ttl(cache: RedisCache, redis_server: RedisServer) -> None:
    nothing = Loader(None)
    assert await cache.get_or_load(KEY, nothing, ttl=60) is None
    assert redis_server.cli("EXISTS", KEY, keys.lease(KEY)) == 0
    assert await cache.get_or_load(KEY, nothing, ttl=60, negative_ttl=5) is None
    assert 0 < redis_server.cli("PTTL", KEY) <= 5000
    assert await cache.get_or_load(KEY, nothing, ttl=60, negative_ttl=5) is None
    assert nothing.calls == 2
    assert await cache.get(KEY, "a miss") is None


async def test_a_kept_none_is_not_refreshed_all_the_time(cache: RedisCache) -> None:
    nothing = Loader(None)
    for _ in range(5):
        assert await cache.get_or_load(KEY, nothing, ttl=60, refresh_after=30, negative_ttl=5) is None
    await asyncio.sleep(0.05)
    assert nothing.calls == 1


async def test_ttls_are_spread_and_zero_is_exact(redis_server: RedisServer, connect: Any) -> None:
    spread, exact = await connect(redis_server.url, ttl_spread=0.2), await connect(redis_server.url, ttl_spread=0)
    await asyncio.gather(*(spread.get_or_load(f"s{n}", Loader(), ttl=100) for n in range(50)))
    lives = [redis_server.cli("PTTL", f"s{n}") for n in range(50)]
    assert min(lives) >= 78_000
    assert max(lives) <= 100_000
    assert max(lives) - min(lives) > 5_000
    await exact.get_or_load("e", Loader(), ttl=100)
    assert 99_000 < redis_server.cli("PTTL", "e") <= 100_000
    await exact.get_or_load("no expiry", Loader())
    assert redis_server.cli("PTTL", "no expiry") == -1


@pytest.mark.parametrize("refresh_after", [1, 10, 90])
async def test_what_is_refreshed_is_spread_by_a_share_of_its_first_life(
    redis_server: RedisServer, connect: Any, refresh_after: int
) -> None:
    """Age is derived from the remaining TTL; a spread of the TTL would exceed a short ``refresh_after`` at once."""
    cache = await connect(redis_server.url, ttl_spread=0.5)
    loaders = [Loader() for _ in range(50)]
    for _ in range(2):
        for n, loader in enumerate(loaders):
            await cache.get_or_load(f"r{n}", loader, ttl=100, refresh_after=refresh_after)
    await until(lambda: not filler_of(cache).background)
    lives = [redis_server.cli("PTTL", f"r{n}") for n in range(50)]
    if refresh_after > 1:  # half a second may pass on a loaded machine
        assert {loader.calls for loader in loaders} == {1}
        assert max(lives) - min(lives) > refresh_after * 200
    assert min(lives) > 100_000 - 500 * refresh_after - 3_000
    assert max(lives) <= 100_000


async def test_a_value_that_is_too_large_is_returned_and_not_kept(redis_server: RedisServer, connect: Any) -> None:
    cache = await connect(redis_server.url, max_value_bytes=1000)
    with pytest.raises(ValueError, match=r"1001 bytes; at most 1000 are cached \(CACHE_MAX_VALUE_BYTES\)"):
        await cache.set(KEY, "x" * 1001)
    assert await cache.set(KEY, "x" * 1000)
    await cache.delete(KEY)
    large = Loader("x" * 1001)
    assert await cache.get_or_load(KEY, large, ttl=60) == "x" * 1001
    assert redis_server.cli("EXISTS", KEY, keys.lease(KEY)) == 0


async def test_a_value_that_cannot_be_stored_raises_and_frees_the_lease(
    cache: RedisCache, redis_server: RedisServer
) -> None:
    with pytest.raises(UnserialisableValue):
        await cache.get_or_load(KEY, Loader(object()), ttl=60)
    await until(lambda: redis_server.cli("EXISTS", keys.lease(KEY)) == 0, 1)


@pytest.mark.parametrize("how", ["away", "off", "a last good value"])
async def test_a_value_that_could_not_be_stored_raises_where_nothing_is_stored_too(
    cache: RedisCache, make_cache: Any, redis_server: RedisServer, how: str
) -> None:
    used = make_cache("redis://127.0.0.1:1/0", enabled=how != "off") if how != "a last good value" else cache
    if used is cache:
        redis_server.cli("SET", keys.stale(KEY), "last good")
    with pytest.raises(UnserialisableValue):
        await used.get_or_load(KEY, Loader({1, 2}), ttl=60, stale_for=60)


async def test_what_cannot_be_decoded_is_loaded_anew(cache: RedisCache, redis_server: RedisServer) -> None:
    redis_server.cli("SET", KEY, '{"cut sho')
    assert await cache.get_or_load(KEY, Loader(), ttl=60) == "loaded"
    assert redis_server.cli("GET", KEY) == "loaded"


@pytest.mark.one_server  # they are checked before any server is asked
@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"ttl": 0}, ValueError),
        ({"ttl": -1}, ValueError),
        ({"ttl": 1.5}, TypeError),
        ({"ttl": 10**17}, ValueError),
        ({"ttl": 60, "stale_for": 2**70}, ValueError),
        ({"ttl": 60, "stale_for": -1}, ValueError),
        ({"ttl": 60, "stale_for": 0.5}, TypeError),
        ({"ttl": 60, "negative_ttl": 0}, ValueError),
        ({"ttl": 60, "refresh_after": 0}, ValueError),
        ({"ttl": 60, "refresh_after": 60}, ValueError),
        ({"refresh_after": 60}, ValueError),
    ],
)
async def test_arguments_are_checked_with_and_without_redis(
    cache: RedisCache, make_cache: Any, connected: bool, arguments: Any, error: type[Exception]
) -> None:
    used = cache if connected else make_cache("redis://127.0.0.1:1/0")
    with pytest.raises(error):
        await used.get_or_load(KEY, Loader(), **arguments)
    with pytest.raises(ValueError, match="key is empty"):
        await used.get_or_load("", Loader(), ttl=60)


# -- Redis away ------------------------------------------------------------------------------------------


async def test_without_redis_one_load_for_all_callers_of_the_process(make_cache: Any) -> None:
    cache = make_cache(f"redis://127.0.0.1:{NOWHERE}/0", connect_wait=0.1)
    await cache.initialize()
    loader = Loader(held=True)
    tasks = [asyncio.create_task(cache.get_or_load(KEY, loader, ttl=60)) for _ in range(50)]
    await loader.started.wait()
    loader.gate.set()
    assert await asyncio.gather(*tasks) == ["loaded"] * 50
    assert loader.calls == 1
    cache.disable()
    assert await cache.get_or_load(KEY, loader, ttl=60) == "loaded"
    assert loader.calls == 2


async def test_without_redis_one_error_per_call_and_nothing_pending(make_cache: Any) -> None:
    cache = make_cache(f"redis://127.0.0.1:{NOWHERE}/0", connect_wait=5.0)
    await cache.initialize()
    before = engine_of(cache).counters.connection_errors
    for n in range(50):
        assert await cache.get_or_load(keys.profile(str(n)), Loader(), ttl=60) == "loaded"
    await until(lambda: not filler_of(cache).leases.releasing)
    assert engine_of(cache).counters.connection_errors - before == 50
    assert not cache.invalidations.undelivered


@pytest.mark.parametrize("from_the_start", [True, False])
async def test_disabled_one_load_no_errors_and_nothing_pending(
    redis_server: RedisServer, make_cache: Any, from_the_start: bool
) -> None:
    cache = make_cache(redis_server.url, enabled=not from_the_start, deadline=2.0, connect_wait=5.0)
    if not from_the_start:
        await initialised(cache)
        cache.disable()
    await until(lambda: "companion-cache" not in redis_server.cli("CLIENT", "LIST"))
    for n in range(20):
        loader = Loader(n, held=True)
        callers = [asyncio.create_task(cache.get_or_load(keys.profile(str(n)), loader, ttl=60)) for _ in range(10)]
        await loader.started.wait()
        callers[0].cancel()
        loader.gate.set()
        assert await asyncio.gather(*callers[1:]) == [n] * 9
        assert loader.calls == 1
    await until(lambda: not filler_of(cache).leases.releasing)
    assert (await cache.get_stats())["connection_errors"] == 0
    assert not cache.invalidations.undelivered
    assert "companion-cache" not in redis_server.cli("CLIENT", "LIST")


async def test_switched_off_in_the_middle_of_a_load(redis_server: RedisServer, connect: Any) -> None:
    leading, waiting = [await connect(redis_server.url) for _ in range(2)]
    loader = Loader(held=True)
    leader = asyncio.create_task(leading.get_or_load(KEY, loader, ttl=60))
    await loader.started.wait()
    waiter = asyncio.create_task(waiting.get_or_load(KEY, Loader("its own"), ttl=60))
    await until(lambda: KEY.encode() in filler_of(waiting).waiters.events)
    leading.disable()
    waiting.disable()
    assert await waiter == "its own"
    loader.gate.set()
    assert await leader == "loaded"
    for cache in (leading, waiting):
        await until(lambda cache=cache: not filler_of(cache).leases.releasing)
        assert (await cache.get_stats())["connection_errors"] == 0
        assert not cache.invalidations.undelivered


@pytest.mark.timed
@pytest.mark.parametrize("silent", [False, True])
async def test_redis_goes_in_the_middle_of_a_load(own_redis: RedisServer, connect: Any, silent: bool) -> None:
    deadline = 0.2
    leading, waiting = [await connect(own_redis.url, deadline=deadline) for _ in range(2)]
    loader, own = Loader(held=True), Loader("loaded by the other")
    callers = [asyncio.create_task(leading.get_or_load(KEY, loader, ttl=60)) for _ in range(20)]
    await loader.started.wait()
    waiters = [asyncio.create_task(waiting.get_or_load(KEY, own, ttl=60)) for _ in range(20)]
    await until(lambda: filler_of(waiting).waiters.events)
    if silent:
        own_redis.pause()
    else:
        own_redis.kill()
    assert set(await asyncio.wait_for(asyncio.gather(*waiters), 10)) == {"loaded by the other"}
    assert own.calls == 1
    loader.gate.set()
    values, took = await timed(asyncio.gather(*callers))
    assert set(values) == {"loaded"}
    assert took < deadline + 0.15
    if silent:
        own_redis.resume()


async def test_a_late_reply_leaves_no_lease_that_others_wait_for(own_redis: RedisServer, connect: Any) -> None:
    """The server grants a lease, but its reply arrives after the deadline."""
    late, other = await connect(own_redis.url, deadline=0.05), await connect(own_redis.url)
    await other.get_or_load("warm", Loader(), ttl=60)  # loads the scripts
    real, sent = engine_of(late).transport.send, asyncio.Event()

    async def send(*command: Any) -> Any:
        if command[0] == "EVALSHA" and not sent.is_set():
            sent.set()
            own_redis.pause()
        return await real(*command)

    engine_of(late).transport.send = send
    assert await late.get_or_load(KEY, Loader("alone"), ttl=60) == "alone"
    own_redis.resume()
    await until(lambda: late.connected)
    value, took = await timed(other.get_or_load(KEY, Loader("together"), ttl=60))
    assert value in ("alone", "together")
    assert took < lease.LEASE_SECONDS / 2
