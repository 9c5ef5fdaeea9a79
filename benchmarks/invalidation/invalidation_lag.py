"""Invalidation lag: how long another process reads the old value from its near cache after a write."""

from __future__ import annotations

import asyncio
import random
import time

from benchmarks.bench import Bench
from benchmarks.child import Child
from benchmarks.figures import number, percentile
from benchmarks.invalidation.invalidation_reader import KEY
from benchmarks.peers import LOCAL, NEAR

_TIMEOUT = 1.0  # seconds after the last write until an unseen value counts as never seen


async def run(bench: Bench) -> None:
    """Print the table and record the target."""
    writes = bench.pick(800, 200)
    bench.title(
        "A change read by another process",
        f"{writes} writes, 1-4 ms apart; milliseconds from the writer's acknowledgement until the other process, which "
        "reads continuously,\nreads the new value. Negative: read before the acknowledgement arrived.",
    )
    rows = []
    for name in LOCAL:
        try:
            lags, never = await _lags(bench, name, writes)
        except Exception as problem:  # reported in the table
            rows.append([name, f"does not work here ({type(problem).__name__})", "-", "-", "-"])
            continue
        figures = [number(percentile(lags, percent) * 1000) for percent in (50, 99, 100)]
        rows.append([name, *figures, f"{never} of {writes}"])
        if name == NEAR:
            met = percentile(lags, 99) <= 0.005 and not never
            bench.target("invalidation seen by another process, p99", "<= 5 ms", f"{figures[1]} ms", met)
    bench.table(("client", "p50", "p99", "longest", "not read within 1 s"), rows)


async def _lags(bench: Bench, name: str, writes: int) -> tuple[list[float], int]:
    server, rng = bench.server(), random.Random(1)
    acknowledged = []
    async with LOCAL[name](server.url) as writer:
        await writer.put(KEY, 0)
        async with Child("invalidation.invalidation_reader", name, server.url) as reader:
            await reader.receive()
            for count in range(1, writes + 1):
                await writer.put(KEY, count)
                acknowledged.append(time.monotonic())
                await asyncio.sleep(rng.uniform(0.001, 0.004))
            await asyncio.sleep(_TIMEOUT)
            seen = await reader.ask("stop")
    lags = []
    for count, when in enumerate(acknowledged, start=1):
        # Reading a later value ends the reading of earlier ones.
        seen_at = [at for value, at in seen if value >= count]
        if seen_at:
            lags.append(seen_at[0] - when)
    return lags, writes - len(lags)
