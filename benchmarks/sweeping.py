"""Everything that a pattern reaches, when that is everything: how long it takes, and how long others wait meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.wait import until

from .bench import Bench
from .figures import Spread
from .keyspace import WAITS, Keyspace, Turn, above_idle, keyspace, others

PATTERN = "user:*"
OURS, ONE_DEL = "invalidate_pattern", "SCAN + one DEL"
SWEEPS: dict[str, Callable[[Keyspace], Awaitable[int]]] = {
    OURS: lambda space: space.cache.invalidate_pattern(PATTERN),
    ONE_DEL: lambda space: space.naive_delete(PATTERN, every=True),
    "SCAN + DEL per page": lambda space: space.naive_delete(PATTERN, every=False),
}


async def run(bench: Bench) -> None:
    """The table, and the rows of the issue."""
    size = bench.pick(1_000_000, 200_000)
    bench.title(
        f"invalidate_pattern: all {size:,} keys",
        "Median [least greatest], against SCAN count=100 + one DEL of everything, with idle seconds before each. "
        "Beside it somebody\nelse's GETs, every half millisecond, and the longest command by the server's own account.",
    )
    turns: dict[str, list[Turn]] = {name: [] for name in SWEEPS}
    idle: dict[str, list[Turn]] = {name: [] for name in SWEEPS}
    cut_short = 0
    async with keyspace(bench) as space:
        for _ in range(bench.pick(3, 2)):
            for name, sweep in SWEEPS.items():
                quiet, turn = await _sweep(space, size, sweep)
                while turn.removed != size:  # Redis did not answer a step in time; the rest goes in the background
                    cut_short += 1
                    if name != OURS or cut_short > 5:
                        raise RuntimeError(f"{name} removed {turn.removed:,} keys of {size:,}")
                    await until(lambda: _empty(space), timeout=60)
                    quiet, turn = await _sweep(space, size, sweep)
                idle[name].append(quiet)
                turns[name].append(turn)
    rows = [["idle", "-", "-", "-", "-", *others([turn for quiet in idle.values() for turn in quiet])]]
    for name, mine in turns.items():
        figures = [str(Spread.of(getattr(turn, figure) for turn in mine)) for figure in ("took", "client", "server")]
        rows.append([name, *figures, str(_ratio(turns, name)), *others(mine)])
    bench.table(("what", "took s", "client CPU s", "server CPU s", "times faster", *WAITS), rows)
    bench.note(f"Sweeps that ended early, since a step was not answered in time, and were done anew: {cut_short}.")
    ratio, above = _ratio(turns, OURS), above_idle(turns[OURS], idle[OURS])
    bench.goal(f"invalidate_pattern of all {size:,}, against SCAN + DEL", ">= 1.3x", f"{ratio}x", ratio.median >= 1.3)
    bench.goal("the same: somebody else's longest GET above idle", "<= 10 ms", f"{above} ms", above.median <= 10)


async def _sweep(space: Keyspace, size: int, sweep: Callable[[Keyspace], Awaitable[int]]) -> tuple[Turn, Turn]:
    await space.fill(size)
    return await space.idle(), await space.watched(sweep(space))


def _ratio(turns: dict[str, list[Turn]], name: str) -> Spread:
    return Spread.of(theirs.took / my.took for my, theirs in zip(turns[name], turns[ONE_DEL], strict=True))


async def _empty(space: Keyspace) -> bool:
    """Whether nothing is left but the bystander's key and the layer's own statistics."""
    return int(await space.redis.dbsize()) <= 2
