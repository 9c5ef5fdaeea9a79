"""Reads and writes of any size, and a time-out for one call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cache import RedisCache, UnserialisableValue, keys, reader, writer
from cache.exceptions import CommandTimeout
from cache.transport.client import send_all
from tests.cache.loading.clock import timed
from tests.inside import engine_of
from tests.real.redis.redis_server import NOWHERE, RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration
KEY = keys.profile("123")

CALLS: dict[str, tuple[Callable[..., Awaitable[Any]], Any]] = {
    "get": (lambda c, **o: c.get(KEY, "default", **o), "default"),
    "get_many": (lambda c, **o: c.get_many([KEY], **o), {}),
    "set": (lambda c, **o: c.set(KEY, "new", **o), False),
    "set_many": (lambda c, **o: c.set_many({KEY: "new", "k": 1}, **o), 0),
    "incr": (lambda c, **o: c.incr("n", **o), None),
    "delete": (lambda c, **o: c.delete(KEY, **o), 0),
    "exists": (lambda c, **o: c.exists(KEY, **o), 0),
    "expire": (lambda c, **o: c.expire(KEY, 60, **o), False),
    "ttl": (lambda c, **o: c.ttl(KEY, **o), -2),
}


async def test_more_than_fits_into_one_round_trip(cache: RedisCache) -> None:
    """``get_many`` of more commands than may be in flight was always empty."""
    values = {f"k{n}": n for n in range(10_500)}
    assert await cache.set_many(values, ttl=60) == 10_500
    assert await cache.get_many(values) == values


async def test_more_is_deleted_than_fits_into_one_deadline(cache: RedisCache, redis_server: RedisServer) -> None:
    """50,000 keys with their guards were one command, during which the server answered no client in time."""
    redis_server.many(("SET", f"k{n}", n) for n in range(50_000))
    assert await cache.delete(*(f"k{n}" for n in range(50_000))) == 50_000
    assert not cache.invalidations.undelivered


async def test_what_a_cancelled_delete_did_not_reach_is_pending(
    own_redis: RedisServer, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BATCH", 2)
    cache = await connect(own_redis.url)
    own_redis.pause()
    deletion = asyncio.create_task(cache.delete("a", "b", "c"))
    await asyncio.sleep(0)
    deletion.cancel()
    await asyncio.wait({deletion})
    own_redis.resume()
    assert set(cache.invalidations.pending.keys) == {"a", "b", "c"}


@pytest.mark.parametrize("bad", [object(), float("nan"), "x" * 2_000_000, {"a": {1}}, {"a": b"1"}])
async def test_set_many_checks_all_before_it_stores_any(cache: RedisCache, redis_server: RedisServer, bad: Any) -> None:
    before = redis_server.cli("DBSIZE")
    with pytest.raises(ValueError, match=r"stored|cached|NaN"):
        await cache.set_many({f"k{n}": n for n in range(2_000)} | {"bad": bad})
    with pytest.raises(TypeError):
        await cache.set_many({"k": 1, b"bad": 2})  # type: ignore[dict-item]  # the case under test
    with pytest.raises(ValueError, match="TTL"):
        await cache.set_many({"k": 1}, ttl=0)
    assert redis_server.cli("DBSIZE") == before


async def test_what_a_cancelled_set_many_did_not_store_is_pending(
    own_redis: RedisServer, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BATCH", 2)
    cache = await connect(own_redis.url)
    values = {f"k{n}": "old" for n in range(7)}
    assert await cache.set_many(values) == 7
    own_redis.pause()
    storing = asyncio.create_task(cache.set_many(dict.fromkeys(values, "new")))
    await asyncio.sleep(0.05)
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    assert set(cache.invalidations.pending.keys) == set(values)
    own_redis.resume()
    await until(lambda: not cache.invalidations.undelivered)
    assert await cache.get_many(values) == {}


async def test_a_batch_that_is_late_costs_no_other(
    own_redis: RedisServer, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "BATCH", 2)
    cache = await connect(own_redis.url)
    await cache.set_many({f"k{n}": n for n in range(6)})
    real, batches = engine_of(cache).transport.send_each, 0

    async def send_each(*commands: Any) -> Any:
        nonlocal batches
        batches += 1
        if batches == 2:
            raise CommandTimeout("late")
        return await real(*commands)

    monkeypatch.setattr(engine_of(cache).transport, "send_each", send_each)
    assert await cache.get_many([f"k{n}" for n in range(6)]) == {"k0": 0, "k1": 1, "k4": 4, "k5": 5}
    assert batches == 3


@pytest.mark.timed
@pytest.mark.parametrize("call", CALLS)
async def test_a_call_answers_within_its_own_time_out(own_redis: RedisServer, connect: Any, call: str) -> None:
    cache = await connect(own_redis.url, deadline=5.0)
    do, neutral = CALLS[call]
    await cache.set(KEY, "old")
    errors = engine_of(cache).counters.connection_errors
    own_redis.pause()
    answer, took = await timed(do(cache, timeout=0.02))
    assert answer == neutral
    assert took < 0.2  # the silence of a quarter of a second would end the call
    assert engine_of(cache).counters.connection_errors > errors
    own_redis.resume()
    await until(lambda: cache.connected and not cache.invalidations.undelivered)
    if call in ("set", "set_many", "delete"):
        assert await cache.get(KEY) is None


@pytest.mark.parametrize("call", CALLS)
async def test_a_time_out_that_is_long_enough_changes_nothing(cache: RedisCache, call: str) -> None:
    do, _ = CALLS[call]
    await cache.set(KEY, "old")
    with_one = await do(cache, timeout=20)
    await cache.delete("n")
    await cache.set(KEY, "old")
    await cache.expire(KEY, 60)
    assert await do(cache) in (with_one, 60, 59)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("timeout", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)])
async def test_a_time_out_is_checked_with_and_without_redis(
    make_cache: Any, call: str, timeout: Any, error: type[Exception]
) -> None:
    away = make_cache(f"redis://127.0.0.1:{NOWHERE}/0", connect_wait=0.1)
    with pytest.raises(error):
        await CALLS[call][0](away, timeout=timeout)
    with pytest.raises(UnserialisableValue):
        await away.set(KEY, object(), timeout=1)


async def test_a_reply_that_arrived_while_the_loop_was_blocked_is_in_time() -> None:
    """It was late, although stored: the value was deleted again, as its store was not acknowledged."""
    loop = asyncio.get_running_loop()

    class Blocked:
        """Its reply is read in the turn of the loop in which the deadline is over."""

        def call_many(self, commands: list[Any]) -> list[asyncio.Future[str]]:
            future: asyncio.Future[str] = loop.create_future()

            def block() -> None:
                time.sleep(0.02)
                loop.call_soon(future.set_result, "reply")

            loop.call_soon(block)
            return [future for _ in commands]

    client: Any = Blocked()
    assert await send_all(client, [("GET", "k")], loop.time() + 0.01) == ["reply"]
