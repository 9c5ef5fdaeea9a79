"""The documented table: reads at the start of a conversation, from their source and from the cache."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.conversations.slow_source import seed_user, slow_runtime
from benchmarks.figures import Spread
from cache import close_redis_cache, get_redis_cache
from cache.registry import use_redis_cache
from companion import get_intelligent_first_message_instructions, get_user_profile_async
from companion.identity import Caller, use_caller
from companion.memory.context import get_conversation_summary_async, get_user_state_async
from companion.runtime import close_runtime

_STORE, _MODEL = 0.075, 0.75
_USER = "ann"


async def _context() -> Any:
    return await asyncio.gather(get_conversation_summary_async(), get_user_state_async())


async def _greeting() -> str:
    return await get_intelligent_first_message_instructions(_USER, "Be kind.")


READS: dict[str, tuple[Callable[[], Awaitable[Any]], str, float]] = {
    "Get Profile": (get_user_profile_async, "50-100x", 50),
    "Get Greeting": (_greeting, "250-500x", 250),
    "Conversation Context": (_context, "50-100x", 50),
}
"""By the documentation's name: the call, the documented improvement, and its lower end."""


async def run(bench: Bench) -> None:
    """Print the table and record the targets."""
    bench.title(
        "The documented table",
        f"A store that takes {_STORE * 1000:.0f} ms and a model that takes {_MODEL * 1000:.0f} ms, both simulated. "
        "Milliseconds, median [least greatest]; each round reads once\nuncached and once cached.",
    )
    with tempfile.TemporaryDirectory() as home, use_caller(Caller(_USER)):
        runtime = slow_runtime(Path(home), store=_STORE, model=_MODEL)
        await seed_user(runtime, _USER)
        await use_redis_cache(bench.server().url)
        try:
            rows = [await _compare(bench, name) for name in READS]
        finally:
            await close_runtime()
            await close_redis_cache()
    bench.table(("operation", "not cached ms", "cached ms", "improvement", "documented"), rows)


async def _compare(bench: Bench, name: str) -> list[str]:
    read, documented, least = READS[name]
    cache = await get_redis_cache()
    cold, warm = [], []
    for _ in range(bench.pick(10, 3)):
        await cache.clear_user_cache(_USER)
        first, took = await _timed(read)
        cold.append(took)
        again, took = await _timed(read)
        warm.append(took)
        if again != first:
            raise RuntimeError(f"{name}: cache and source differ")
    ratio = Spread.of(slow / fast for slow, fast in zip(cold, warm, strict=True))
    met = ratio.median >= least
    bench.target(f"documented: {name}, cached against not cached", documented, f"{ratio}x", met)
    return [name, str(Spread.of(cold).times(1000)), str(Spread.of(warm).times(1000)), f"{ratio}x", documented]


async def _timed(read: Callable[[], Awaitable[Any]]) -> tuple[Any, float]:
    began = time.perf_counter()
    value = await read()
    return value, time.perf_counter() - began
