"""What invalidates one user's values: its cost among few and among many keys, under each eviction policy."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from benchmarks.bench import Bench
from benchmarks.figures import Spread
from benchmarks.invalidation.keyspace import Keyspace, keyspace
from cache import CacheSettings, RedisCache, keys
from companion.caching.invalidation import invalidate
from companion.caching.search_keys import count_key, generation_key, search_key
from tests.wait import until

USER = "ann"
POLICIES = ("noeviction", "volatile-lru", "allkeys-lru")
OPERATIONS: dict[str, Callable[[RedisCache], Awaitable[object]]] = {
    "clear_user_cache": lambda cache: cache.clear_user_cache(USER),
    'invalidate_pattern("user:ann:*")': lambda cache: cache.invalidate_pattern(f"user:{USER}:*"),
    "remembering a fact": lambda cache: invalidate(cache, USER, "memory"),
}
_LEAST_MS = 0.3  # differences below are the scheduler's


async def run(bench: Bench) -> None:
    """Print the table and record the targets."""
    sizes = 10_000, bench.pick(1_000_000, 200_000)
    bench.title(
        f"One user's values among {sizes[0]:,} and among {sizes[1]:,} keys",
        "Median [least greatest] of the milliseconds until the call returns; the scan in the background has ended "
        "before the next.",
    )
    took: dict[tuple[str, str, str, int], list[float]] = {}
    async with AsyncExitStack() as stack:
        space = await stack.enter_async_context(keyspace(bench))
        caches = {"plain": space.cache, "encrypted": await _encrypting(stack, space)}
        for size in sizes:
            await space.fill(size)
            for policy in POLICIES:
                await space.redis.config_set("maxmemory-policy", policy)
                for what, operation in OPERATIONS.items():
                    for how, cache in caches.items():
                        for _ in range(bench.pick(7, 5)):
                            seconds = await _timed(cache, operation)
                            took.setdefault((policy, what, how, size), []).append(seconds * 1000)
    head = ("policy", "what", "values", *(f"{size:,} keys ms" for size in sizes))
    cases = [(policy, what, how) for policy in POLICIES for what in OPERATIONS for how in caches]
    bench.table(head, [[*case, *(str(Spread.of(took[*case, size])) for size in sizes)] for case in cases])
    for what in OPERATIONS:
        # The least of the rounds: what else runs on the machine can only add to it.
        least = {case: [Spread.of(took[*case, size]).low for size in sizes] for case in cases if case[1] == what}
        ratios = {case: many / max(few, _LEAST_MS) for case, (few, many) in least.items()}
        worst = max(ratios, key=lambda case: ratios[case])
        bench.target(
            f"{what}: cost among {sizes[1]:,} over cost among {sizes[0]:,}",
            "about 1",
            f"{ratios[worst]:.2f} at most ({worst[0]}, {worst[2]})",
            ratios[worst] <= 2,
        )


async def _encrypting(stack: AsyncExitStack, space: Keyspace) -> RedisCache:
    cache = RedisCache(settings=CacheSettings(url=space.server.url, encryption_keys=(bytes(32),)))
    await cache.initialize()
    stack.push_async_callback(cache.close)
    return cache


async def _timed(cache: RedisCache, operation: Callable[[RedisCache], Awaitable[object]]) -> float:
    """Seconds until the call returned."""
    for key in (keys.profile(USER), generation_key(USER), search_key(USER, "sister", "g"), count_key(USER, "", "")):
        if not await cache.set(key, "something about Ann", ttl=key.ttl):
            raise RuntimeError("a key could not be stored")
    began = time.perf_counter()
    await operation(cache)
    took = time.perf_counter() - began
    await until(lambda: not cache.invalidations.background_scan.running, timeout=60)
    return took
