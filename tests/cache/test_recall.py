"""A Redis that comes back older than it was: nothing it has forgotten to forget is served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from cache import RedisCache, keys
from cache.embedded import EmbeddedRedis
from cache.fill import Loader
from tests.real.redis_server import RedisServer
from tests.wait import initialised, until

MINE, YOURS, OTHER = keys.profile("me"), keys.profile("you"), "reports:today"
Make = Callable[..., RedisCache]


async def run_id(server: RedisServer) -> str:
    info = await asyncio.to_thread(server.cli, "INFO", "server")
    return next(line.partition(":")[2] for line in info.splitlines() if line.startswith("run_id:"))


async def connected(server: RedisServer, make_cache: Make) -> RedisCache:
    cache = make_cache(server.url, connect_wait=5.0, deadline=1.0)
    await initialised(cache)
    return cache


async def marked(server: RedisServer) -> None:
    """Wait until the server carries the mark of its own run."""
    own = await run_id(server)
    await until(lambda: server.cli("GET", keys.system_server()) == own)


async def old_dump(server: RedisServer, cache: RedisCache) -> bytes:
    """A dump in which there are values that have changed since."""
    await cache.set(MINE, "old", ttl=3600)
    await cache.get_or_load(keys.summary("me"), _loads("old"), ttl=3600, stale_for=3600)
    await cache.set(YOURS, "still right", ttl=3600)
    await cache.set(OTHER, "not a user's", ttl=3600)
    await marked(server)
    dump = await asyncio.to_thread(server.dump)
    await cache.delete(MINE, keys.summary("me"))
    return dump


def _loads(value: str) -> Loader:
    async def load() -> str:
        return value

    return load


async def _fails() -> str:
    raise LookupError


async def test_who_was_connected_is_served_nothing_old(own_redis: RedisServer, make_cache: Make) -> None:
    cache = await connected(own_redis, make_cache)
    dump = await old_dump(own_redis, cache)
    await asyncio.to_thread(own_redis.restore, dump)
    assert own_redis.cli("GET", MINE) in ("old", None)
    seen = set()
    while not (cache.connected and not cache.owing):
        seen.add(await cache.get(MINE))
        await asyncio.sleep(0)
    seen.add(await cache.get(MINE))
    assert seen == {None}
    assert own_redis.cli("KEYS", "*user:*") == []  # nobody could say what changed: all of it went, last good values too
    assert await cache.get(OTHER) == "not a user's"
    await marked(own_redis)


async def test_who_connects_afterwards_is_served_nothing_old(own_redis: RedisServer, make_cache: Make) -> None:
    cache = await connected(own_redis, make_cache)
    dump = await old_dump(own_redis, cache)
    await cache.close()
    await asyncio.to_thread(own_redis.restore, dump)
    late = await connected(own_redis, make_cache)
    assert await late.get(MINE) is None
    with pytest.raises(LookupError):
        await late.get_or_load(keys.summary("me"), _fails, ttl=60, stale_for=60)


async def test_what_is_told_again_goes_and_the_rest_stays(own_redis: RedisServer, make_cache: Make) -> None:
    cache = await connected(own_redis, make_cache)
    dump = await old_dump(own_redis, cache)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def ask() -> bool:
        asked.set()
        await go_on.wait()
        await cache.delete(MINE, keys.summary("me"))
        return True

    cache.recall_with(ask)
    await asyncio.to_thread(own_redis.restore, dump)
    await asked.wait()
    assert await cache.get(MINE) is None
    assert await cache.get(YOURS) is None  # it may be old: nobody knows yet
    assert await cache.get_or_load(MINE, _loads("new"), ttl=60) == "new"
    assert own_redis.cli("GET", keys.system_server()) != await run_id(own_redis)
    go_on.set()
    await until(lambda: not cache.owing)
    assert await cache.get(YOURS) == "still right"
    await marked(own_redis)


@pytest.mark.parametrize("problem", [None, LookupError("what Ada said")], ids=["says no", "raises"])
async def test_who_cannot_say_clears_everything(
    own_redis: RedisServer, make_cache: Make, caplog: pytest.LogCaptureFixture, problem: Exception | None
) -> None:
    cache = await connected(own_redis, make_cache)
    dump = await old_dump(own_redis, cache)

    async def ask() -> bool:
        if problem is not None:
            raise problem
        return False

    cache.recall_with(ask)
    await asyncio.to_thread(own_redis.restore, dump)
    await until(lambda: cache.connected and not cache.owing)
    assert own_redis.cli("KEYS", "user:*") == []
    assert "Ada" not in caplog.text


async def test_a_connection_that_was_lost_is_no_reason_to_doubt(own_redis: RedisServer, make_cache: Make) -> None:
    cache = await connected(own_redis, make_cache)
    await cache.set(MINE, "right", ttl=3600)
    await marked(own_redis)
    asked = []

    async def ask() -> bool:
        asked.append(True)
        return False

    cache.recall_with(ask)
    own_redis.cli("CLIENT", "KILL", "TYPE", "normal")
    await until(lambda: not cache.connected)
    await until(lambda: cache.connected)
    assert await cache.get(MINE) == "right"
    late = await connected(own_redis, make_cache)
    assert await late.get(MINE) == "right"
    assert asked == []


@pytest.mark.parametrize("how", [["FLUSHALL"], ["DEL", keys.system_server()], ["SET", keys.system_server(), "x"]])
async def test_a_mark_that_is_lost_is_back_at_once(own_redis: RedisServer, make_cache: Make, how: list[str]) -> None:
    """Flushed or evicted: what is dumped afterwards must carry it again."""
    for cache in (await connected(own_redis, make_cache), await connected(own_redis, make_cache)):
        await until(lambda cache=cache: cache._engine.tracking)
    await marked(own_redis)
    for _ in range(3):
        own_redis.cli(*how)
        await marked(own_redis)


async def test_a_mark_that_is_lost_untold_is_back_after_a_while(
    own_redis: RedisServer, make_cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.recall._MARK_EVERY", 0.1)
    own_redis.cli("ACL", "SETUSER", "default", "-client")
    await connected(own_redis, make_cache)
    await marked(own_redis)
    own_redis.cli("FLUSHALL")
    await marked(own_redis)


async def test_the_private_redis_keeps_what_it_has(tmp_path: Path, make_cache: Make) -> None:
    """Its log of writes is complete, however it ended."""
    server = EmbeddedRedis(tmp_path)
    cache = make_cache(await server.start(), connect_wait=5.0)
    await initialised(cache)
    await cache.set(MINE, "right", ttl=3600)
    await cache.close()
    await server.stop()
    again = make_cache(await server.start(), connect_wait=5.0)
    await initialised(again)
    assert await again.get(MINE) == "right"
    assert not again.owing
    await again.close()
    await server.stop()
