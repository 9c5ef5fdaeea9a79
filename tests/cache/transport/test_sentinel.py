"""Sentinels: asked before each attempt to connect, believed only where a primary is, followed through a failover."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from cache import RedisCache, keys
from cache.transport import connection, handshake, sentinel
from tests.inside import engine_of
from tests.real.redis.redis_server import NOWHERE, RedisServer
from tests.real.redis.resp2_server import without_resp3
from tests.real.redis.scripted_sentinel import scripted, url
from tests.real.redis.sentinels import Watched, watched
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
PEM = Path(__file__).parents[2] / "real" / "localhost.pem"


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A primary, a replica and three Sentinels, with passwords."""
    with watched(tmp_path_factory.mktemp("watched")) as servers:
        yield servers


def quarantined(cache: RedisCache) -> bool:
    return bool(engine_of(cache).pending.quarantines)


async def test_a_planned_failover_is_followed(trio: Watched, connect: Callable[..., Awaitable[RedisCache]]) -> None:
    await until(trio.ready, timeout=30)
    cache = await connect(trio.url)
    primary, replica = trio.primary(), trio.replica()
    trio.sentinels[0].cli("SENTINEL", "FAILOVER", "callers")
    await until(lambda: trio.primary() is replica, timeout=30)

    async def arrives() -> bool:
        return await cache.set("k", "new") and replica.cli("GET", "k") == "new"

    await until(arrives)
    assert primary.cli("ROLE")[0] == "master", "it takes the Sentinels ten seconds to make it a replica"
    # Or the next test waits for what this cache leaves unfinished.
    await until(lambda: replica.cli("GET", "system:server").partition(":")[0] in replica.cli("INFO", "server"))
    await until(lambda: not replica.cli("EXISTS", keys.lease(keys.system_server())))
    primary.cli("REPLICAOF", "127.0.0.1", replica.port)  # the next test need not wait for it


async def test_a_failover_is_followed_and_nothing_stale_is_served(
    trio: Watched, connect: Callable[..., Awaitable[RedisCache]], caplog: pytest.LogCaptureFixture
) -> None:
    """The primary dies with deletes that its replica has not seen, while callers read and write."""
    await until(trio.ready, timeout=30)
    one, other = [await connect(trio.url, near=frozenset({"profile"})) for _ in range(2)]
    await until(lambda: not quarantined(one) and not quarantined(other))
    truth = {f"user:{number}:profile": "old" for number in range(30)}
    for key in truth:
        assert await one.set(key, "old", ttl=600)
        assert await other.get(key) == "old"
    primary, replica = trio.primary(), trio.replica()
    await until(lambda: replica.cli("DBSIZE") == primary.cli("DBSIZE"))
    replica.cli("CONFIG", "SET", "masterauth", "wrong")
    primary.cli("CLIENT", "KILL", "TYPE", "replica")
    await until(lambda: "connected_slaves:0" in primary.cli("INFO", "replication"))
    for key in list(truth)[:10]:
        truth[key] = "new"
        assert await one.delete(key) == 1
    stale: list[str] = []
    over = asyncio.Event()

    async def talk(cache: RedisCache, seed: int) -> None:
        chance = random.Random(seed)
        while not over.is_set():
            for key in chance.sample(sorted(truth), 5):
                if await cache.get(key, "none") not in ("none", truth[key]):
                    stale.append(key)
            await cache.set(f"user:{seed}:note", seed, ttl=60)
            await asyncio.sleep(0.005)

    talking = [asyncio.create_task(talk(cache, seed)) for seed, cache in enumerate((one, other))]
    primary.kill()
    await until(lambda: not one.connected and not other.connected)
    await until(lambda: one.connected and other.connected, timeout=30)
    await until(lambda: not quarantined(one) and not quarantined(other), timeout=30)
    over.set()
    await asyncio.gather(*talking)
    assert (trio.primary(), stale) == (replica, [])
    assert await one.set("user:1:profile", "new")
    assert await other.get("user:1:profile") == "new"
    assert replica.cli("GET", "user:1:profile") == "new"
    assert (await one.get_stats())["redis_keys"] > 0, "the pool has followed too"
    lost = [record for record in caplog.records if "Connection failed" in record.message]
    assert len(lost) <= 2 * 2, "a line for the multiplexed connection and one for the pool"


@pytest.mark.parametrize("resp3", [True, False])
async def test_what_the_sentinels_name_next_is_used_next(
    own_redis: RedisServer, redis_server: RedisServer, make_cache: Any, resp3: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that they still name is refused; over the pool as over the multiplexed connection."""
    monkeypatch.setattr(sentinel, "ASK_EVERY", 0.01)
    monkeypatch.setattr(connection, "ROLE_SECONDS", 0.1)
    async with AsyncExitStack() as stack:
        ports = [own_redis.port, redis_server.port]
        if not resp3:
            ports = [await stack.enter_async_context(without_resp3(port)) for port in ports]
        named = ports[0]
        asked = await stack.enter_async_context(scripted(lambda: named))
        cache = make_cache(url([asked]), deadline=2.0, connect_wait=5.0)
        await initialised(cache)
        await until(lambda: cache.set("k", "first"))
        own_redis.cli("REPLICAOF", "127.0.0.1", NOWHERE)

        async def away() -> bool:
            return await cache.get("k") is None and not cache.connected

        await until(away)
        await asyncio.sleep(0.1)
        assert (cache.connected, await cache.get("k")) == (False, None)
        named = ports[1]
        await until(lambda: cache.set("k", "second"))
        assert (own_redis.cli("GET", "k"), redis_server.cli("GET", "k")) == ("first", "second")
        await cache.close()


async def test_a_wrong_password_of_the_sentinels_is_named(
    trio: Watched, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = [trio.url.partition("?")[0], trio.url + "x", trio.url.replace("=asker", "=nemo")]
    for address in wrong:
        cache = make_cache(address, connect_wait=5.0)
        assert await cache.initialize() is False
        await cache.close()
    assert caplog.text.count(handshake.SENTINEL_REFUSES) == len(wrong)
