"""Targets of the cancellation load: multiplexer, pool, ``get_or_load`` and the stores."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cache import CacheSettings, RedisCache
from cache.exceptions import TransportError
from cache.transport.client import Client
from cache.transport.fallback.pool import PooledClient
from cache.transport.multiplexer import MultiplexedClient
from companion.store import SqliteStore, Store, StoreError, SupabaseStore, Turn
from tests.faults.harness.background_proxy import BackgroundProxy
from tests.faults.load.cancellation_load import LoadResult, no_leaked_tasks, run_load
from tests.inside import engine_of, filler_of
from tests.real.redis.redis_server import RedisServer
from tests.real.supabase.postgres import Postgres
from tests.real.supabase.postgrest import PostgREST
from tests.wait import initialised, until

DELAY = (0.0, 0.003)
SUPABASE_TIMEOUT = 2.0


@asynccontextmanager
async def _faulty_network(
    directory: Path,
    result: LoadResult,
    seed: int,
    *,
    client: type[Client] = MultiplexedClient,
    args: Sequence[str] = (),
) -> AsyncIterator[RedisCache]:
    """A cache behind a proxy that delays and splits replies; leaked resources are recorded at the end.

    Args:
        directory: the server's.
        result: takes what is found.
        seed: of the proxy.
        client: what the cache is to send with.
        args: options of the server.
    """
    server = await asyncio.to_thread(RedisServer(directory, args=args).start)
    try:
        with patch("tests.real.proxy.SPLIT_GAP", 0.0), BackgroundProxy(server.port, seed=seed) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}/0"
            async with no_leaked_tasks(result):
                cache = RedisCache(
                    settings=CacheSettings(url=url, url_is_default=False, connect_wait=5.0, deadline=result.deadline)
                )
                await initialised(cache)
                assert isinstance(engine_of(cache).transport.client, client)
                await proxy.apply(lambda inner: _degrade(inner, True))
                yield cache
                await proxy.apply(lambda inner: _degrade(inner, False))
                await _check_leaks(cache, result)
                await cache.close()
            await until(lambda: "companion-cache" not in server.cli("CLIENT", "LIST"))
    finally:
        await asyncio.to_thread(server.stop)


def _degrade(proxy: Any, degraded: bool) -> None:
    proxy.split_replies = degraded
    proxy.delay_to_client = DELAY if degraded else 0.0


async def _check_leaks(cache: RedisCache, result: LoadResult) -> None:
    transport = engine_of(cache).transport

    def held() -> dict[str, int]:
        """Resources held by calls in flight, by kind."""
        client = transport.client
        one = client.connection if isinstance(client, MultiplexedClient) else None
        pool = client if isinstance(client, PooledClient) else None
        held_now = {
            "commands in flight on the multiplexer": len(one.in_flight) if one else 0,
            "loads": len(filler_of(cache).loads)
            + len(filler_of(cache).background)
            + len(filler_of(cache).leases.releasing),
            "waiters": len(filler_of(cache).waiters.events),
            "abandoned calls": len(pool.background) if pool else 0,
            "pool connections": len(pool.client.connection_pool._in_use_connections) if pool and pool.client else 0,
        }
        return {what: number for what, number in held_now.items() if number}

    try:
        await until(lambda: cache.connected and not held(), 5.0)
    except AssertionError:
        result.leaked += [f"{number} {what}" for what, number in held().items()] or ["no connection"]
    if await transport.send("ECHO", "in step?") != b"in step?":
        result.wrong += 1


async def _run_echo(cache: RedisCache, result: LoadResult, calls: int, seed: int, **options: int) -> None:
    async def echo(text: str) -> bool | None:
        try:
            return bool(await engine_of(cache).transport.send("ECHO", text) == text.encode())
        except TransportError:
            return None

    await until(lambda: echo("warm"))
    await run_load(result, echo, calls, seed, **options)


async def run_multiplexer(directory: Path, calls: int, seed: int, stop_at: float = math.inf) -> LoadResult:
    result = LoadResult("multiplexer", stop_at=stop_at)
    async with _faulty_network(directory, result, seed) as cache:
        await _run_echo(cache, result, calls, seed)
    return result


async def run_pool(directory: Path, calls: int, seed: int, stop_at: float = math.inf) -> LoadResult:
    result = LoadResult("pool", stop_at=stop_at, deadline=0.2)  # a cancelled call costs a new connection
    without_resp3 = ("--rename-command", "HELLO", "")
    async with _faulty_network(directory, result, seed, client=PooledClient, args=without_resp3) as cache:
        await _run_echo(cache, result, calls, seed, concurrency=20)
    return result


async def run_get_or_load(directory: Path, calls: int, seed: int, stop_at: float = math.inf) -> LoadResult:
    """Ten calls share a key, so that callers join and leave loads in flight; every hundredth call invalidates."""
    result = LoadResult("get_or_load", stop_at=stop_at)
    async with _faulty_network(directory, result, seed) as cache:

        async def ask(text: str) -> bool | None:
            key = f"user:{text[:-1]}:profile"

            async def load() -> str:
                await asyncio.sleep(0)
                return f"of {key}"

            if text.endswith("00"):  # a separate call with a deadline of its own
                await cache.delete(key)
                return True
            return bool(await cache.get_or_load(key, load, ttl=60, stale_for=60) == f"of {key}")

        await run_load(result, ask, calls, seed)
    return result


async def _run_store(result: LoadResult, store: Store, calls: int, seed: int, concurrency: int) -> None:
    """Each call reads and writes a user of its own."""

    async def use(text: str) -> bool | None:
        try:
            match int(text.rpartition(".")[2]) % 3:
                case 0:
                    await store.save_profile(text, f"of {text}")
                    return await store.get_profile(text) == f"of {text}"
                case 1:
                    turn = Turn(role="user", text=f"of {text}", at=datetime.now(UTC), conversation_id="load", id=text)
                    await store.add_turn(text, turn)
                    return await store.recent_turns(text) == [turn]
                case _:
                    return await store.get_profile(text) in (None, f"of {text}")
        except StoreError:
            return None

    async with no_leaked_tasks(result):
        await store.save_profile("before", "of before")
        await run_load(result, use, calls, seed, concurrency=concurrency)
        if await store.get_profile("before") != "of before":
            result.wrong += 1
        await store.close()


async def run_supabase(directory: Path, calls: int, seed: int, stop_at: float = math.inf) -> LoadResult:
    """A stand-in for the hosted API over a real PostgreSQL."""
    result = LoadResult("Supabase", stop_at=stop_at, deadline=SUPABASE_TIMEOUT)
    postgres = await asyncio.to_thread(Postgres().start)
    try:
        async with PostgREST(await postgres.create_database()) as api:
            store = SupabaseStore(api.url, api.secret_key, timeout=SUPABASE_TIMEOUT)
            await _run_store(result, store, calls, seed, concurrency=20)
    finally:
        await asyncio.to_thread(postgres.stop)
    return result


async def run_sqlite(directory: Path, calls: int, seed: int, stop_at: float = math.inf) -> LoadResult:
    # The SQLite store has no deadline: calls wait for the disk.
    result = LoadResult("SQLite", stop_at=stop_at, deadline=math.inf)
    await _run_store(result, SqliteStore(directory / "companion.db"), calls, seed, concurrency=20)
    return result


TARGETS = {
    "multiplexer": run_multiplexer,
    "pool": run_pool,
    "get_or_load": run_get_or_load,
    "SQLite": run_sqlite,
    "Supabase": run_supabase,
}
