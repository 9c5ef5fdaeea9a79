"""``invalidate_pattern`` of a whole keyspace: duration, and the latency seen by another client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benchmarks.bench import Bench
from benchmarks.figures import Spread
from benchmarks.invalidation.keyspace import PROBE_COLUMNS, Keyspace, Timing, above_idle, keyspace, probe_columns
from tests.wait import until

PATTERN = "user:*"
OURS, ONE_DEL = "invalidate_pattern", "SCAN + one DEL"
STRATEGIES: dict[str, Callable[[Keyspace], Awaitable[int]]] = {
    OURS: lambda space: space.cache.invalidate_pattern(PATTERN),
    ONE_DEL: lambda space: space.naive_delete(PATTERN, every=True),
    "SCAN + DEL per page": lambda space: space.naive_delete(PATTERN, every=False),
}


async def run(bench: Bench) -> None:
    """Print the table and record the targets."""
    size = bench.pick(1_000_000, 200_000)
    bench.title(
        f"invalidate_pattern: all {size:,} keys",
        "Median [least greatest], against SCAN count=100 + one DEL of everything, with idle seconds before each. "
        "Meanwhile another\nclient's GETs, every half millisecond, and the longest command by the server's SLOWLOG.",
    )
    timings: dict[str, list[Timing]] = {name: [] for name in STRATEGIES}
    idle: dict[str, list[Timing]] = {name: [] for name in STRATEGIES}
    incomplete = 0
    async with keyspace(bench) as space:
        for _ in range(bench.pick(3, 2)):
            for name, strategy in STRATEGIES.items():
                idle_run, timing = await _run_strategy(space, size, strategy)
                while timing.removed != size:  # a step timed out; the rest is removed in the background
                    incomplete += 1
                    if name != OURS or incomplete > 5:
                        raise RuntimeError(f"{name} removed {timing.removed:,} keys of {size:,}")
                    await until(lambda: _empty(space), timeout=60)
                    idle_run, timing = await _run_strategy(space, size, strategy)
                idle[name].append(idle_run)
                timings[name].append(timing)
    rows = [["idle", "-", "-", "-", "-", *probe_columns([timing for idle_run in idle.values() for timing in idle_run])]]
    for name, ours in timings.items():
        figures = [
            str(Spread.of(getattr(timing, figure) for timing in ours)) for figure in ("took", "client", "server")
        ]
        rows.append([name, *figures, str(_ratio(timings, name)), *probe_columns(ours)])
    bench.table(("what", "took s", "client CPU s", "server CPU s", "times faster", *PROBE_COLUMNS), rows)
    bench.note(f"Runs repeated because a step timed out: {incomplete}.")
    ratio, above = _ratio(timings, OURS), above_idle(timings[OURS], idle[OURS])
    bench.target(f"invalidate_pattern of all {size:,}, against SCAN + DEL", ">= 1.3x", f"{ratio}x", ratio.median >= 1.3)
    bench.target("the same: another client's longest GET above idle", "<= 10 ms", f"{above} ms", above.median <= 10)


async def _run_strategy(
    space: Keyspace, size: int, strategy: Callable[[Keyspace], Awaitable[int]]
) -> tuple[Timing, Timing]:
    await space.fill(size)
    return await space.idle(), await space.measured(strategy(space))


def _ratio(timings: dict[str, list[Timing]], name: str) -> Spread:
    return Spread.of(theirs.took / my.took for my, theirs in zip(timings[name], timings[ONE_DEL], strict=True))


async def _empty(space: Keyspace) -> bool:
    """Whether only the probe's key and the layer's statistics remain."""
    return int(await space.redis.dbsize()) <= 2
