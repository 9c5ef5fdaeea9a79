"""One process writes, another holds the old value in its near cache: how long it goes on answering with it."""

from __future__ import annotations

import asyncio
import random
import time

from .bench import Bench
from .child import Child
from .figures import number, percentile
from .peers import KEEPING, NEAR
from .sightings import KEY

_LONGEST = 1.0  # seconds after the last write until what was not seen counts as never


async def run(bench: Bench) -> None:
    """The table, and the row of the issue."""
    writes = bench.pick(800, 200)
    bench.title(
        "A change seen by another process",
        f"{writes} writes, 1-4 ms apart; milliseconds from the writer's acknowledgement until the other process, which "
        "reads all the time,\nanswers with the new value. Below zero: seen before the writer knew.",
    )
    rows = []
    for name in KEEPING:
        try:
            lags, never = await _lags(bench, name, writes)
        except Exception as problem:  # a peer that cannot do this is shown as such
            rows.append([name, f"does not work here ({type(problem).__name__})", "-", "-", "-"])
            continue
        figures = [number(percentile(lags, percent) * 1000) for percent in (50, 99, 100)]
        rows.append([name, *figures, f"{never} of {writes}"])
        if name == NEAR:
            good = percentile(lags, 99) <= 0.005 and not never
            bench.goal("invalidation seen by another process, p99", "<= 5 ms", f"{figures[1]} ms", good)
    bench.table(("client", "p50", "p99", "longest", "not seen within 1 s"), rows)


async def _lags(bench: Bench, name: str, writes: int) -> tuple[list[float], int]:
    server, choice = bench.server(), random.Random(1)
    acknowledged = []
    async with KEEPING[name](server.url) as writer:
        await writer.put(KEY, 0)
        async with Child("sightings", name, server.url) as reader:
            await reader.hear()
            for count in range(1, writes + 1):
                await writer.put(KEY, count)
                acknowledged.append(time.monotonic())
                await asyncio.sleep(choice.uniform(0.001, 0.004))
            await asyncio.sleep(_LONGEST)
            seen = await reader.ask("stop")
    lags = []
    for count, when in enumerate(acknowledged, start=1):
        # Whoever sees a later value has stopped seeing the ones before it.
        sightings = [at for value, at in seen if value >= count]
        if sightings:
            lags.append(sightings[0] - when)
    return lags, writes - len(lags)
