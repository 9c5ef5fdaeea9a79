"""``clear_user_cache`` of three keys in a large keyspace: cost, and the latency seen by another client."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import replace

from benchmarks.bench import Bench
from benchmarks.figures import Spread, number
from benchmarks.invalidation.keyspace import PROBE_COLUMNS, Keyspace, Timing, above_idle, keyspace, probe_columns
from cache import keys

USER = "ann"


async def run(bench: Bench) -> None:
    """Print the table and record the targets."""
    many = bench.pick(1_000_000, 200_000)
    bench.title(
        f"clear_user_cache: 3 keys of one user among 10,000 and among {many:,}",
        "Median [least greatest], against SCAN count=100 + DEL, with idle seconds before each round. Meanwhile "
        "another client's GETs,\nevery half millisecond; for this layer until its background scan for unindexed keys "
        "has ended.",
    )
    rows, medians = [], {}
    async with keyspace(bench) as space:
        for size in (10_000, many):
            await space.fill(size)
            idle, ours, naive = await _compare(space, bench.pick(5, 2))
            medians[size] = statistics.median(timing.took for timing in ours)
            ratio = Spread.of(theirs.took / my.took for my, theirs in zip(ours, naive, strict=True))
            rows += [
                [f"idle, {size:,} keys", "-", "-", "-", *probe_columns(idle)],
                _row(f"SCAN + DEL, {size:,} keys", naive, "1.00"),
                _row(f"clear_user_cache, {size:,} keys", ours, str(ratio)),
            ]
    bench.table(("what", "took ms", "client CPU ms", "times faster", *PROBE_COLUMNS), rows)
    threshold = many // 1000  # 1000x of a million: what SCAN costs grows with the keyspace
    met = ratio.median >= threshold
    bench.target(f"clear_user_cache, 3 keys among {many:,}, against SCAN + DEL", f">= {threshold:,}x", f"{ratio}x", met)
    above = above_idle(ours, idle)
    bench.target("the same: another client's longest GET above idle", "<= 5 ms", f"{above} ms", above.median <= 5)
    costs = medians[many] / medians[10_000]
    bench.target(f"the same: cost among {many:,} over cost among 10,000", "about 1", number(costs), costs <= 2)


def _row(what: str, timings: list[Timing], ratio: str) -> list[str]:
    took, client = (Spread.of(getattr(timing, figure) * 1000 for timing in timings) for figure in ("took", "client"))
    return [what, str(took), str(client), ratio, *probe_columns(timings)]


async def _compare(space: Keyspace, rounds: int) -> tuple[list[Timing], list[Timing], list[Timing]]:
    """Measure idle seconds, this layer, and SCAN + DEL in each round."""
    idle, ours, naive = [], [], []
    for _ in range(rounds):
        idle.append(await space.idle())
        await _write_three_keys(space)
        timing = await space.measured(space.cache.clear_user_cache(USER))
        background = await space.measured(_background_scan_ended(space))
        ours.append(
            replace(
                timing,
                probe_times=timing.probe_times + background.probe_times,
                longest_command=max(timing.longest_command, background.longest_command),
            )
        )
        await _write_three_keys(space)
        naive.append(await space.measured(space.naive_delete(keys.user_pattern(USER), every=True)))
    for timing in (*ours, *naive):
        if timing.removed != 3:
            raise RuntimeError(f"{timing.removed} keys were removed, not 3")
    return idle, ours, naive


async def _write_three_keys(space: Keyspace) -> None:
    for key in (keys.profile(USER), keys.greeting_instructions(USER), keys.memory(USER, "7")):
        if not await space.cache.set(key, "something about Ann", ttl=key.ttl):
            raise RuntimeError("a key could not be stored")


async def _background_scan_ended(space: Keyspace) -> None:
    """Wait until no SCAN was executed for a tenth of a second."""
    before = -1
    while (now := await _scans(space)) != before:
        before = now
        await asyncio.sleep(0.1)


async def _scans(space: Keyspace) -> int:
    stats = await space.redis.info("commandstats")
    return int(stats.get("cmdstat_scan", {}).get("calls", 0))
