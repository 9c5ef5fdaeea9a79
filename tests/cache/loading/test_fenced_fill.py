"""No fill succeeds after an acknowledged invalidation of its key, by any process and any method.

The loader is blocked at its await; the source changes; an invalidation of the key is acknowledged; the loader is
released with the value it read before. Only its own caller receives that value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cache import RedisCache, keys
from cache.invalidation import invalidator as invalidation
from cache.loading import lease
from tests.cache.loading.loader import Loader
from tests.inside import engine_of, filler_of
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = [pytest.mark.integration, pytest.mark.every_server]
PROFILE = keys.profile("123")
CUSTOM = "user:123:notes:7"  # of no family: the load must add it to the user's index

INVALIDATIONS: dict[str, Callable[[RedisCache, str], Awaitable[Any]]] = {
    "delete": lambda cache, key: cache.delete(key),
    "set": lambda cache, key: cache.set(key, "new", ttl=60),
    "invalidate_pattern": lambda cache, key: cache.invalidate_pattern("user:*"),
    "invalidate_pattern, open set": lambda cache, key: cache.invalidate_pattern(f"{key[:-1]}[^x"),
    "clear_user_cache": lambda cache, key: cache.clear_user_cache("123"),
}


@pytest.fixture
async def pair(redis_server: RedisServer, connect: Any) -> list[RedisCache]:
    """Two caches, as in two processes."""
    return [await connect(redis_server.url) for _ in range(2)]


async def held_load(cache: RedisCache, key: str, **terms: Any) -> tuple[Loader, asyncio.Task[Any]]:
    """A load that has read the old value and is blocked."""
    loader = Loader("old", held=True)
    task = asyncio.create_task(cache.get_or_load(key, loader, **({"ttl": 60} | terms)))
    await loader.started.wait()
    loader.value = "new"
    return loader, task


@pytest.mark.parametrize("small", [True, False], ids=["small keyspace", "large keyspace"])
@pytest.mark.parametrize("key", [PROFILE, CUSTOM])
@pytest.mark.parametrize("who", [0, 1], ids=["by itself", "by another"])
@pytest.mark.parametrize("how", INVALIDATIONS)
async def test_no_fill_after_an_acknowledged_invalidation(
    pair: list[RedisCache],
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    who: int,
    key: str,
    small: bool,
) -> None:
    monkeypatch.setattr(invalidation, "SMALL", 2_000 if small else 0)
    loader, task = await held_load(pair[0], key, ttl=None, stale_for=60)
    await INVALIDATIONS[how](pair[who], key)
    after = asyncio.create_task(pair[who].get_or_load(key, Loader("new"), ttl=60))
    loader.gate.set()
    assert await task == "old"  # requested earlier, answered with the value of that time
    assert await after == "new"
    assert redis_server.cli("GET", key) == "new"
    assert redis_server.cli("GET", keys.stale(key)) in (None, "new")
    for cache in pair:
        assert await cache.get(key) == "new"


async def test_a_fill_between_a_scan_and_its_delete_leaves_nothing(
    pair: list[RedisCache], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan has found the lease; the fill replaces it by a value and a last good value before it is deleted."""
    loader, task = await held_load(pair[0], PROFILE, stale_for=60)
    transport = engine_of(pair[1]).transport
    unlink = transport.unlink

    async def unlink_after_the_fill(*args: Any, **options: Any) -> int:
        loader.gate.set()
        await task
        return await unlink(*args, **options)

    monkeypatch.setattr(transport, "unlink", unlink_after_the_fill)
    await pair[1].invalidate_pattern("user:*")
    assert task.done()
    assert redis_server.cli("EXISTS", PROFILE, keys.lease(PROFILE), keys.stale(PROFILE)) == 0


@pytest.mark.parametrize("how", INVALIDATIONS)
async def test_a_call_after_an_invalidation_elsewhere_does_not_join_the_old_load(
    pair: list[RedisCache], how: str
) -> None:
    loader, task = await held_load(pair[0], PROFILE)
    await INVALIDATIONS[how](pair[1], PROFILE)
    await until(lambda: PROFILE not in filler_of(pair[0]).loads, 1)  # time for a push to arrive
    assert await pair[0].get_or_load(PROFILE, Loader("new"), ttl=60) == "new"
    loader.gate.set()
    assert await task == "old"


async def test_by_redis_cli_with_the_lease(pair: list[RedisCache], redis_server: RedisServer) -> None:
    """A manual invalidation must include the lease: ``UNLINK user:123:profile lease:{user:123:profile}``."""
    loader, task = await held_load(pair[0], PROFILE)
    redis_server.cli("UNLINK", PROFILE, keys.lease(PROFILE))
    loader.gate.set()
    assert await task == "old"
    assert redis_server.cli("EXISTS", PROFILE, keys.lease(PROFILE)) == 0


async def test_by_redis_cli_without_the_lease(pair: list[RedisCache], redis_server: RedisServer) -> None:
    """A bare DEL during a load has no effect, as with any cache: the key does not exist yet.

    It is no invalidation of this layer, so the fill succeeds. The key lasts until its TTL expires or until an
    invalidation through the layer.
    """
    loader, task = await held_load(pair[0], PROFILE)
    assert redis_server.cli("DEL", PROFILE) == 0
    loader.gate.set()
    assert await task == "old"
    assert redis_server.cli("GET", PROFILE) == "old"
    redis_server.cli("DEL", PROFILE)
    assert await pair[1].get_or_load(PROFILE, Loader("new"), ttl=60) == "new"


async def test_an_evicted_lease_means_no(pair: list[RedisCache], redis_server: RedisServer) -> None:
    loader, task = await held_load(pair[0], PROFILE)
    redis_server.cli("DEL", keys.lease(PROFILE))
    loader.gate.set()
    assert await task == "old"
    assert redis_server.cli("EXISTS", PROFILE) == 0


async def test_a_lease_that_ended_while_our_process_slept_is_not_ours_any_more(
    pair: list[RedisCache], redis_server: RedisServer
) -> None:
    loader, task = await held_load(pair[0], PROFILE)
    redis_server.cli("SET", keys.lease(PROFILE), "the next one's token", "PX", 60_000)
    loader.gate.set()
    assert await task == "old"
    assert redis_server.cli("GET", keys.lease(PROFILE)) == "the next one's token"
    assert redis_server.cli("EXISTS", PROFILE) == 0


@pytest.mark.one_server
async def test_the_lease_is_renewed_while_the_loader_runs(
    pair: list[RedisCache], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(lease, "SLOW", 0.025)
    monkeypatch.setattr(lease, "RENEW_EVERY", 0.1)
    loader, task = await held_load(pair[0], PROFILE)
    other = Loader("loaded twice")
    waiter = asyncio.create_task(pair[1].get_or_load(PROFILE, other, ttl=60))
    for _ in range(10):  # three leases long
        await asyncio.sleep(0.1)
        assert 0 < redis_server.cli("PTTL", keys.lease(PROFILE)) <= 300
    loader.gate.set()
    assert await asyncio.gather(task, waiter) == ["old", "old"]
    assert other.calls == 0


async def test_script_flush_between_any_two_steps(
    pair: list[RedisCache], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_EVERY", 0.01)
    flushes = 0
    real = engine_of(pair[0]).transport.run

    async def run(*args: Any, **options: Any) -> Any:
        nonlocal flushes
        flushes += 1
        redis_server.cli("SCRIPT", "FLUSH")
        return await real(*args, **options)

    monkeypatch.setattr(engine_of(pair[0]).transport, "run", run)
    loader, task = await held_load(pair[0], PROFILE)
    await until(lambda: flushes > 2)  # taken, and renewed
    loader.gate.set()
    assert await task == "old"
    assert redis_server.cli("GET", PROFILE) == "old"
    assert await pair[0].set(PROFILE, "set", ttl=60)
    assert await pair[1].get(PROFILE) == "set"


async def test_an_invalidation_that_redis_refuses_still_stops_the_fill(
    own_redis: RedisServer, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    cache = await connect(own_redis.url)
    loader, task = await held_load(cache, PROFILE)
    own_redis.cli("ACL", "SETUSER", "default", "-unlink")
    assert await cache.delete(PROFILE) == 0
    loader.gate.set()
    assert await task == "old"
    assert await cache.get(PROFILE) is None
    own_redis.cli("ACL", "SETUSER", "default", "+unlink")
    assert await cache.get_or_load(PROFILE, Loader("new"), ttl=60) == "new"
    await until(lambda: not cache.invalidations.undelivered)
    assert await cache.get(PROFILE) in (None, "new")
    assert own_redis.cli("GET", PROFILE) in (None, "new")


async def test_nx_that_does_not_store_does_not_end_a_load(pair: list[RedisCache], redis_server: RedisServer) -> None:
    loader, task = await held_load(pair[0], PROFILE)
    assert await pair[1].set(PROFILE, "changed", xx=True) is False
    loader.gate.set()
    assert await task == "old"
    assert redis_server.cli("GET", PROFILE) == "old"


@pytest.mark.parametrize("tracked", [True, False], ids=["after a lost connection", "where the server sends no push"])
async def test_a_load_begun_before_an_invalidation_elsewhere_is_not_joined(
    redis_server: RedisServer, connect: Any, tracked: bool
) -> None:
    one = await connect(redis_server.url)
    if tracked:
        another = await connect(redis_server.url)
    else:
        redis_server.cli("ACL", "SETUSER", "untold", "on", ">pw", "~*", "&*", "+@all", "-client")
        another = await connect(redis_server.url.replace("redis://", "redis://untold:pw@"), tracked=False)
    loader, task = await held_load(another, PROFILE)
    if tracked:
        redis_server.cli("CLIENT", "KILL", "TYPE", "normal")
        await until(lambda: not (one.connected or another.connected))
        await until(lambda: one.connected and engine_of(another).servers.tracks(""))
    assert await one.delete(PROFILE) == 0
    asked = asyncio.get_running_loop().time()
    await until(lambda: PROFILE not in filler_of(another).loads)
    assert asyncio.get_running_loop().time() - asked < lease.LEASE_SECONDS / 6
    later = asyncio.create_task(another.get_or_load(PROFILE, loader, ttl=60))
    loader.gate.set()
    assert (await task, await later) == ("old", "new")
    redis_server.cli("ACL", "DELUSER", "untold")
