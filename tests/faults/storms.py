"""Where the calls of a storm go: the lane, the pool, ``get_or_load``, the stores."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cache import CacheSettings, RedisCache
from cache.exceptions import TransportError
from companion.store import SqliteStore, Store, StoreError, SupabaseStore, Turn
from tests.faults.background import BackgroundProxy
from tests.faults.storm import Storm, nothing_left, rage
from tests.real.postgres import Postgres
from tests.real.postgrest import PostgREST
from tests.real.redis_server import RedisServer
from tests.wait import initialised, until

DELAY = (0.0, 0.003)
SUPABASE_TIMEOUT = 2.0


@asynccontextmanager
async def _bad_road(directory: Path, storm: Storm, seed: int) -> AsyncIterator[RedisCache]:
    """A cache behind a network that delays and cuts up what the server says; at the end everything is given back."""
    server = await asyncio.to_thread(RedisServer(directory).start)
    try:
        with patch("tests.real.proxy.SPLIT_GAP", 0.0), BackgroundProxy(server.port, seed=seed) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}/0"
            async with nothing_left(storm):
                cache = RedisCache(
                    settings=CacheSettings(url=url, url_is_default=False, connect_wait=5.0, deadline=storm.deadline)
                )
                await initialised(cache)
                await proxy.do(lambda it: _spoil(it, True))
                yield cache
                await proxy.do(lambda it: _spoil(it, False))
                await _come_to_rest(cache, storm)
                await cache.close()
            await until(lambda: "companion-cache" not in server.cli("CLIENT", "LIST"))
    finally:
        await asyncio.to_thread(server.stop)


def _spoil(proxy: Any, bad: bool) -> None:
    proxy.split_replies = bad
    proxy.delay_to_client = DELAY if bad else 0.0


async def _come_to_rest(cache: RedisCache, storm: Storm) -> None:
    engine = cache._engine

    def places() -> dict[str, int]:
        """What calls take while they are under way, and give back."""
        lane, client = engine.lane, engine._link._client
        taken = {
            "places on the lane": len(lane._wire.waiters) if lane and lane._wire else 0,
            "loads": len(cache._filler._flights._flights)
            + len(cache._filler._behind)
            + len(cache._filler.leases.releasing),
            "waiters": len(cache._filler._waiters._waiting),
            "abandoned calls": len(engine._link._loose),
            "connections of the pool": len(client.connection_pool._in_use_connections) if client else 0,
        }
        return {what: number for what, number in taken.items() if number}

    try:
        await until(lambda: engine.connected and not places(), 5.0)
    except AssertionError:
        storm.left += [f"{number} {what}" for what, number in places().items()] or ["no connection"]
    if await engine.send("ECHO", "in step?") != b"in step?":
        storm.wrong += 1


async def on_the_lane(directory: Path, calls: int, seed: int, ends: float = math.inf) -> Storm:
    storm = Storm("lane", ends=ends)
    async with _bad_road(directory, storm, seed) as cache:

        async def echo(text: str) -> bool | None:
            try:
                return bool(await cache._engine.send("ECHO", text) == text.encode())
            except TransportError:
                return None

        await rage(storm, echo, calls, seed)
    return storm


async def on_the_pool(directory: Path, calls: int, seed: int, ends: float = math.inf) -> Storm:
    storm = Storm("pool", ends=ends, deadline=0.2)  # room for opening a connection, which every cancelled call costs
    async with _bad_road(directory, storm, seed) as cache:

        async def echo(text: str) -> bool | None:
            try:
                return bool(
                    await cache._engine.call(lambda client: client.execute_command("ECHO", text)) == text.encode()
                )
            except TransportError:
                return None

        await until(lambda: echo("warm"))
        await rage(storm, echo, calls, seed, callers=20)
    return storm


async def through_get_or_load(directory: Path, calls: int, seed: int, ends: float = math.inf) -> Storm:
    """Ten calls share a key, so that flights are joined and left; every hundredth invalidates."""
    storm = Storm("get_or_load", ends=ends)
    async with _bad_road(directory, storm, seed) as cache:

        async def ask(text: str) -> bool | None:
            key = f"user:{text[:-1]}:profile"

            async def load() -> str:
                await asyncio.sleep(0)
                return f"of {key}"

            if text.endswith("00"):  # a call of its own, with a deadline of its own
                await cache.delete(key)
                return True
            return bool(await cache.get_or_load(key, load, ttl=60, stale_for=60) == f"of {key}")

        await rage(storm, ask, calls, seed)
    return storm


async def _in_a_store(storm: Storm, store: Store, calls: int, seed: int, callers: int) -> None:
    """Everybody reads and writes their own."""

    async def use(text: str) -> bool | None:
        try:
            match int(text.rpartition(".")[2]) % 3:
                case 0:
                    await store.save_profile(text, f"of {text}")
                    return await store.get_profile(text) == f"of {text}"
                case 1:
                    turn = Turn(role="user", text=f"of {text}", at=datetime.now(UTC), conversation_id="storm", id=text)
                    await store.add_turn(text, turn)
                    return await store.recent_turns(text) == [turn]
                case _:
                    return await store.get_profile(text) in (None, f"of {text}")
        except StoreError:
            return None

    async with nothing_left(storm):
        await store.save_profile("before", "of before")
        await rage(storm, use, calls, seed, callers=callers)
        if await store.get_profile("before") != "of before":
            storm.wrong += 1
        await store.close()


async def in_supabase(directory: Path, calls: int, seed: int, ends: float = math.inf) -> Storm:
    """The stand-in for the hosted API, with a real PostgreSQL under it."""
    storm = Storm("Supabase", ends=ends, deadline=SUPABASE_TIMEOUT)
    postgres = await asyncio.to_thread(Postgres().start)
    try:
        async with PostgREST(await postgres.create_database()) as api:
            store = SupabaseStore(api.url, api.secret_key, timeout=SUPABASE_TIMEOUT)
            await _in_a_store(storm, store, calls, seed, callers=20)
    finally:
        await asyncio.to_thread(postgres.stop)
    return storm


async def in_sqlite(directory: Path, calls: int, seed: int, ends: float = math.inf) -> Storm:
    storm = Storm(
        "SQLite", ends=ends, deadline=math.inf
    )  # it has none of its own: whoever waits there waits for the disk
    await _in_a_store(storm, SqliteStore(directory / "companion.db"), calls, seed, callers=20)
    return storm


STORMS = {
    "lane": on_the_lane,
    "pool": on_the_pool,
    "get_or_load": through_get_or_load,
    "SQLite": in_sqlite,
    "Supabase": in_supabase,
}
