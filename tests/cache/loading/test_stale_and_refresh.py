"""get_or_load with stale values and background refresh: slow loads, failing loads."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cache import RedisCache, keys
from cache.loading import lease
from tests.cache.loading.clock import timed
from tests.cache.loading.loader import Loader
from tests.inside import engine_of, filler_of
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration
KEY = keys.profile("123")


@pytest.fixture
async def pair(redis_server: RedisServer, connect: Any) -> list[RedisCache]:
    return [await connect(redis_server.url, ttl_spread=0) for _ in range(2)]


async def expired(cache: RedisCache, server: RedisServer, value: str = "good") -> None:
    """A key without a value but with a last good value."""
    await cache.get_or_load(KEY, Loader(value), ttl=60, stale_for=60)
    assert 60_000 < server.cli("PTTL", keys.stale(KEY)) <= 120_000
    server.cli("DEL", KEY)


async def load(cache: RedisCache, loader: Loader, **terms: Any) -> Any:
    return await cache.get_or_load(KEY, loader, **({"ttl": 60, "stale_for": 60} | terms))


# -- the last good value ---------------------------------------------------------------------------------


async def test_a_failing_loader_is_answered_with_the_last_good_value(
    pair: list[RedisCache], redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await expired(pair[0], redis_server)
    assert await load(pair[1], Loader(OSError("what the user said"))) == "good"
    assert "OSError" in caplog.text
    assert "what the user said" not in caplog.text
    await until(lambda: redis_server.cli("GET", keys.lease(KEY)) == "failed")
    with pytest.raises(OSError, match="down"):  # a caller without stale_for gets no stale value
        await load(pair[1], Loader(OSError("down")), stale_for=0, retry_after=0)
    await until(lambda: redis_server.cli("EXISTS", keys.lease(KEY)) == 0)
    assert await load(pair[0], Loader("recovered")) == "recovered"


async def test_a_loader_that_was_cancelled_from_within_is_one_that_failed(
    pair: list[RedisCache], redis_server: RedisServer
) -> None:
    """It awaits a task that something else cancels. The caller was not cancelled."""

    async def load_cancelled() -> str:
        raise asyncio.CancelledError

    await expired(pair[0], redis_server)
    assert await pair[1].get_or_load(KEY, load_cancelled, ttl=60, stale_for=60) == "good"


@pytest.mark.timed
async def test_a_slow_loader_is_answered_too_and_fills_for_the_next(
    pair: list[RedisCache], redis_server: RedisServer
) -> None:
    await expired(pair[0], redis_server)
    slow = Loader("newer", held=True)
    answers = await asyncio.gather(*(timed(load(cache, slow)) for cache in pair for _ in range(10)))
    assert {answer for answer, _ in answers} == {"good"}
    assert max(took for _, took in answers) < lease.SLOW + 0.3
    assert slow.calls == 1
    assert (slow.ended, redis_server.cli("EXISTS", KEY)) == (0, 0)
    slow.gate.set()
    await until(lambda: redis_server.cli("GET", KEY) == "newer")
    assert await load(pair[1], Loader("not asked")) == "newer"
    assert redis_server.cli("GET", keys.stale(KEY)) == "newer"


async def test_a_loader_that_is_quick_enough_answers_for_itself(
    pair: list[RedisCache], redis_server: RedisServer
) -> None:
    await expired(pair[0], redis_server)
    assert await load(pair[0], Loader("newer")) == "newer"


@pytest.mark.parametrize("how", ["delete", "set", "invalidate_pattern", "clear_user_cache"])
async def test_never_after_an_invalidation(pair: list[RedisCache], redis_server: RedisServer, how: str) -> None:
    await expired(pair[0], redis_server)
    await {
        "delete": lambda: pair[1].delete(KEY),
        "set": lambda: pair[1].set(KEY, "set", ttl=60),
        "invalidate_pattern": lambda: pair[1].invalidate_pattern("user:*:profile"),
        "clear_user_cache": lambda: pair[1].clear_user_cache("123"),
    }[how]()
    assert redis_server.cli("EXISTS", keys.stale(KEY)) == 0
    redis_server.cli("DEL", KEY)
    with pytest.raises(OSError, match="down"):
        await load(pair[0], Loader(OSError("down")))
    slow = Loader("new", held=True)
    waiting = asyncio.create_task(load(pair[0], slow))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), lease.SLOW + 0.1)
    slow.gate.set()
    assert await waiting == "new"


async def test_an_invalidation_while_others_wait_for_a_slow_loader(
    pair: list[RedisCache], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiter in another process is woken by the invalidation and loads again, instead of serving the stale value."""
    monkeypatch.setattr(lease, "SLOW", 2.0)  # the time for the waiter to come, and for the invalidation
    await expired(pair[0], redis_server)
    slow = Loader("newer", held=True)
    leading = asyncio.create_task(load(pair[0], slow))
    await slow.started.wait()
    waiting = asyncio.create_task(load(pair[1], Loader("newest")))
    await until(lambda: KEY.encode() in filler_of(pair[1]).waiters.events)
    await asyncio.sleep(0.05)  # the waiter has been denied the lease, and waits
    await pair[0].delete(KEY)
    assert await waiting == "newest"
    assert await leading == "good"
    slow.gate.set()
    await until(lambda: slow.ended)
    assert await pair[0].get(KEY) == "newest"


# -- refresh ---------------------------------------------------------------------------------------------


async def aged(cache: RedisCache, server: RedisServer) -> None:
    """A value of 60 s that is past its first 30."""
    await cache.get_or_load(KEY, Loader("first"), ttl=60)
    server.cli("PEXPIRE", KEY, 29_000)


@pytest.mark.timed
async def test_a_hit_past_it_is_served_at_once_and_refreshed_once(
    pair: list[RedisCache], redis_server: RedisServer
) -> None:
    await aged(pair[0], redis_server)
    slow = Loader("second", held=True)

    async def ask(cache: RedisCache) -> Any:
        return await cache.get_or_load(KEY, slow, ttl=60, refresh_after=30)

    answers = await asyncio.gather(*(timed(ask(cache)) for cache in pair for _ in range(20)))
    assert {answer for answer, _ in answers} == {"first"}
    assert max(took for _, took in answers) < 0.2
    await slow.started.wait()
    assert await ask(pair[1]) == "first"
    slow.gate.set()
    await until(lambda: redis_server.cli("GET", KEY) == "second")
    assert slow.calls == 1
    assert redis_server.cli("PTTL", KEY) > 59_000
    assert await ask(pair[1]) == "second"
    assert slow.calls == 1


async def test_a_young_hit_is_not_refreshed(pair: list[RedisCache]) -> None:
    loader = Loader()
    for _ in range(3):
        assert await pair[0].get_or_load(KEY, loader, ttl=60, refresh_after=30) == "loaded"
    assert loader.calls == 1
    assert not filler_of(pair[0]).background


async def test_a_refresh_that_fails_leaves_the_value_and_is_tried_again(
    pair: list[RedisCache], redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await aged(pair[0], redis_server)
    loader = Loader(OSError("down"))
    assert await pair[0].get_or_load(KEY, loader, ttl=60, refresh_after=30) == "first"
    await until(lambda: not filler_of(pair[0]).background)
    assert "OSError" in caplog.text
    assert redis_server.cli("GET", KEY) == "first"
    loader.value = "second"
    assert await pair[0].get_or_load(KEY, loader, ttl=60, refresh_after=30) == "first"
    await until(lambda: redis_server.cli("GET", KEY) == "second")


async def test_no_refresh_lands_after_an_invalidation(pair: list[RedisCache], redis_server: RedisServer) -> None:
    await aged(pair[0], redis_server)
    slow = Loader("old", held=True)
    await pair[0].get_or_load(KEY, slow, ttl=60, refresh_after=30)
    await slow.started.wait()
    await pair[1].delete(KEY)
    slow.gate.set()
    await until(lambda: not filler_of(pair[0]).background)
    assert redis_server.cli("EXISTS", KEY, keys.lease(KEY)) == 0


async def test_a_value_that_expires_during_its_refresh_is_waited_for_not_loaded_twice(
    pair: list[RedisCache], redis_server: RedisServer
) -> None:
    await aged(pair[0], redis_server)
    slow = Loader("second", held=True)
    await pair[0].get_or_load(KEY, slow, ttl=60, refresh_after=30)
    await slow.started.wait()
    redis_server.cli("DEL", KEY)
    waiting = [asyncio.create_task(cache.get_or_load(KEY, slow, ttl=60)) for cache in pair]
    await until(lambda: all(KEY in filler_of(cache).loads for cache in pair))
    await asyncio.sleep(0.05)
    slow.gate.set()
    values, took = await timed(asyncio.gather(*waiting))
    assert values == ["second", "second"]
    assert took < 1.0  # woken in the refreshing process too, without waiting for the lease to expire
    assert slow.calls == 1


# -- what the source has no more -------------------------------------------------------------------------


async def test_a_refresh_that_finds_none_removes_the_value(pair: list[RedisCache], redis_server: RedisServer) -> None:
    await pair[0].get_or_load(KEY, Loader("first"), ttl=60, stale_for=60)
    redis_server.cli("PEXPIRE", KEY, 29_000)
    nothing = Loader(None)
    assert await pair[1].get_or_load(KEY, nothing, ttl=60, refresh_after=30) == "first"
    await until(lambda: redis_server.cli("EXISTS", KEY, keys.stale(KEY), keys.lease(KEY)) == 0)
    assert await load(pair[0], nothing, refresh_after=30) is None
    with pytest.raises(OSError, match="down"):
        await load(pair[0], Loader(OSError("down")))


@pytest.mark.parametrize("terms", [{}, {"stale_for": 0}, {"negative_ttl": 5}, {"stale_for": 0, "negative_ttl": 5}])
async def test_the_last_good_value_goes_when_there_is_none(
    pair: list[RedisCache], redis_server: RedisServer, terms: dict[str, int]
) -> None:
    await expired(pair[0], redis_server)
    assert await load(pair[1], Loader(None), **terms) is None
    assert redis_server.cli("GET", keys.stale(KEY)) in (None, "null")
    redis_server.cli("DEL", KEY)
    (answer,) = await asyncio.gather(load(pair[0], Loader(OSError("down"))), return_exceptions=True)
    assert answer is None or isinstance(answer, OSError)


async def test_what_has_become_too_large_to_be_kept_replaces_what_was_there(
    redis_server: RedisServer, connect: Any
) -> None:
    cache = await connect(redis_server.url, ttl_spread=0, max_value_bytes=100)
    await cache.get_or_load(KEY, Loader("first"), ttl=60, stale_for=60)
    redis_server.cli("PEXPIRE", KEY, 29_000)
    assert await cache.get_or_load(KEY, Loader("x" * 101), ttl=60, refresh_after=30) == "first"
    await until(lambda: redis_server.cli("EXISTS", KEY, keys.stale(KEY), keys.lease(KEY)) == 0)


async def test_the_near_cache_forgets_what_is_no_more(redis_server: RedisServer, connect: Any) -> None:
    pair = [await connect(redis_server.url, ttl_spread=0, near=frozenset({"profile"})) for _ in range(2)]
    await pair[0].get_or_load(KEY, Loader("first"), ttl=60)
    for cache in pair:
        assert await cache.get(KEY) == "first"
        assert len(engine_of(cache).near.entries) == 1
    redis_server.cli("PEXPIRE", KEY, 29_000)
    for cache in pair:
        await until(lambda cache=cache: not len(engine_of(cache).near.entries))
        assert await cache.get(KEY) == "first"
    assert await pair[0].get_or_load(KEY, Loader(None), ttl=60, refresh_after=30) == "first"
    await until(lambda: redis_server.cli("EXISTS", KEY) == 0)
    assert await pair[0].get(KEY) is None
    await until(lambda: not len(engine_of(pair[1]).near.entries))
    assert await pair[1].get(KEY) is None


async def test_none_under_a_lost_right_removes_nothing(pair: list[RedisCache], redis_server: RedisServer) -> None:
    await aged(pair[0], redis_server)
    nothing = Loader(None, held=True)
    await pair[0].get_or_load(KEY, nothing, ttl=60, refresh_after=30)
    await nothing.started.wait()
    assert await pair[1].set(KEY, "newer", ttl=60)
    nothing.gate.set()
    await until(lambda: not filler_of(pair[0]).background)
    assert redis_server.cli("GET", KEY) == "newer"


async def test_an_undelivered_invalidation_is_obeyed(own_redis: RedisServer, connect: Any) -> None:
    cache = await connect(own_redis.url, ttl_spread=0)
    await aged(cache, own_redis)
    nothing = Loader(None, held=True)
    await cache.get_or_load(KEY, nothing, ttl=60, refresh_after=30)
    await nothing.started.wait()
    own_redis.cli("ACL", "SETUSER", "default", "-evalsha")
    nothing.gate.set()
    await until(lambda: not filler_of(cache).background)
    assert await cache.get(KEY) is None
    own_redis.cli("ACL", "SETUSER", "default", "+evalsha")
    await until(lambda: own_redis.cli("EXISTS", KEY) == 0)


# -- where the server may not push -----------------------------------------------------------------------


@pytest.mark.timed
async def test_without_tracking_waiters_look_again(tmp_path: Path, connect: Any) -> None:
    acl = ["--user", "ann", "on", ">pw", "~*", "&*", "+@all", "-client", "+client|setname"]
    with RedisServer(tmp_path / "r", args=acl) as server:
        url = f"redis://ann:pw@127.0.0.1:{server.port}/0"
        pair = [await connect(url, tracked=False, near=frozenset({"profile"})) for _ in range(2)]
        slow = Loader(held=True)
        leading = asyncio.create_task(load(pair[0], slow))
        await slow.started.wait()
        waiting = asyncio.create_task(load(pair[1], slow))
        await until(lambda: filler_of(pair[1]).loads)
        slow.gate.set()
        (value, took), _ = await asyncio.gather(timed(waiting), leading)
        assert value == "loaded"
        assert took < 0.5
        assert slow.calls == 1
        assert not any(engine_of(cache).servers.tracks("") for cache in pair)
        server.cli("SET", KEY, "changed elsewhere")
        assert await pair[1].get(KEY) == "changed elsewhere"  # nothing is in the near cache
        assert len(engine_of(pair[1]).near.entries) == 0
        for cache in pair:
            await cache.close()


async def test_a_refresh_that_hangs_is_begun_once(cache: RedisCache, redis_server: RedisServer) -> None:
    await cache.get_or_load(KEY, Loader("old"), ttl=60)
    redis_server.cli("PEXPIRE", KEY, 20_000)
    slow = Loader("new", held=True)
    await cache.get_or_load(KEY, slow, ttl=60, refresh_after=30)
    await slow.started.wait()
    tasks = len(asyncio.all_tasks())
    for _ in range(50):
        assert await cache.get_or_load(KEY, slow, ttl=60, refresh_after=30) == "old"
    assert len(asyncio.all_tasks()) <= tasks
    slow.gate.set()
    await until(lambda: redis_server.cli("GET", KEY) == "new")
