"""A session start with everything cached: number and duration of round trips to Redis.

Round trips are counted on a network that delays every reply by a fixed time: each adds that time once.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from benchmarks.bench import Bench
from benchmarks.child import Child
from benchmarks.command_monitor import CommandMonitor
from benchmarks.conversations.slow_source import PROFILE, seed_user, slow_runtime
from benchmarks.figures import Spread
from benchmarks.peers import DOCUMENTED
from cache import close_redis_cache, keys
from cache.registry import use_redis_cache
from companion import get_intelligent_first_message_instructions, get_user_profile_async
from companion.identity import Caller, use_caller
from companion.runtime import close_runtime
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

_LATENCY = 0.02  # seconds by which the slow network delays replies
_USER = "ann"
OURS, AGAIN, NAIVE = "this layer", "this layer, connecting first", "naive, one call after the other"
Start = Callable[[], Awaitable[Any]]


async def run(bench: Bench) -> None:
    """Print the table and record the target."""
    bench.title(
        "A warm session start: profile, greeting and the statistics",
        f"Round trips: milliseconds lost on a network that delivers replies {_LATENCY * 1000:.0f} ms late, over those "
        f"{_LATENCY * 1000:.0f} ms. Median [least greatest].",
    )
    server = bench.server()
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(use_caller(Caller(_USER)))
        runtime = slow_runtime(home)
        stack.push_async_callback(close_redis_cache)
        stack.push_async_callback(close_runtime)
        await seed_user(runtime, _USER)
        network = await stack.enter_async_context(
            Child("delay_proxy", str(server.port), str(_LATENCY), str(_LATENCY), "1")
        )
        slow_url = f"redis://127.0.0.1:{await network.receive()}/0"
        fast_times, sent = await _starts(bench, server.url, server)
        slow_times, _ = await _starts(bench, slow_url, server)
    rows = []
    for name, times in fast_times.items():
        usual = Spread.of(times).median
        trips = Spread.of((slow - usual) / _LATENCY for slow in slow_times[name])
        rows.append([name, str(Spread.of(times).times(1000)), str(trips)])
        if name == OURS:
            bench.target(
                "warm session start: sequential round trips to Redis", "1", str(trips), round(trips.median) == 1
            )
    bench.table(("start", "loopback ms", "round trips"), rows)
    bench.note(f"What {OURS} sent, with seconds since the first: {'; '.join(sent)}.")


async def _starts(bench: Bench, url: str, server: RedisServer) -> tuple[dict[str, list[float]], list[str]]:
    times: dict[str, list[float]] = {OURS: [], AGAIN: [], NAIVE: []}
    naive = Redis.from_url(url, decode_responses=True, **DOCUMENTED)
    async with naive:
        await _seed_naive(naive)
        await use_redis_cache(url)
        await _warm_start()
        for _ in range(bench.pick(20, 5)):
            times[OURS].append(await _timed(_warm_start))
            times[NAIVE].append(await _timed(lambda: _naive_start(naive)))
        async with CommandMonitor(server.port) as monitor:
            await _warm_start()
            await _counters_flushed(server)
            commands = await monitor.commands()
        for _ in range(bench.pick(20, 5)):
            await close_redis_cache()
            times[AGAIN].append(await _timed(lambda: _connect_and_warm(url)))
    began = commands[0][0]
    await close_redis_cache()
    ours = [
        (at, text) for at, text in commands if not text.startswith(("PING", "HGET"))
    ]  # HGET is sent by this benchmark
    return times, [f"+{at - began:.3f} {text}" for at, text in ours]


async def _warm_start() -> Any:
    profile, greeting = await asyncio.gather(
        get_user_profile_async(), get_intelligent_first_message_instructions(_USER, "Be kind.")
    )
    if profile != PROFILE or "Oslo" not in greeting:
        raise RuntimeError("the session started with wrong data")


async def _connect_and_warm(url: str) -> Any:
    await use_redis_cache(url)
    await _warm_start()


async def _seed_naive(naive: Redis) -> None:
    await naive.set("naive:profile", json.dumps(PROFILE))
    await naive.set("naive:greeting", json.dumps({"opening": "follow_up", "topic": "Oslo"}))


async def _naive_start(naive: Redis) -> Any:
    json.loads(await naive.get("naive:profile"))
    await naive.hincrby("naive:stats", "cache_hits", 1)
    json.loads(await naive.get("naive:greeting"))
    await naive.hincrby("naive:stats", "cache_hits", 1)


async def _counters_flushed(server: RedisServer) -> None:
    """Wait until the hits of the start are in the shared statistics."""

    def hits() -> Any:
        return server.cli("HGET", keys.system_stats(), "cache_hits")

    before = hits()
    await until(lambda: hits() != before)


async def _timed(work: Start) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began
