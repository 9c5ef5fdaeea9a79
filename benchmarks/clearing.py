"""One user's few keys among very many: what it costs to find and remove them, and whom it disturbs."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import replace

from cache import keys

from .bench import Bench
from .figures import Spread, number
from .keyspace import WAITS, Keyspace, Turn, above_idle, keyspace, others

USER = "ann"


async def run(bench: Bench) -> None:
    """The table, and the rows of the issue."""
    many = bench.pick(1_000_000, 200_000)
    bench.title(
        f"clear_user_cache: 3 keys of one user among 10,000 and among {many:,}",
        "Median [least greatest], against SCAN count=100 + DEL, with idle seconds before each round. Beside it "
        "somebody else's GETs,\nevery half millisecond; for this layer until its search in the background, for what "
        "others wrote, has ended.",
    )
    rows, medians = [], {}
    async with keyspace(bench) as space:
        for size in (10_000, many):
            await space.fill(size)
            idle, mine, naive = await _compare(space, bench.pick(5, 2))
            medians[size] = statistics.median(turn.took for turn in mine)
            ratio = Spread.of(theirs.took / my.took for my, theirs in zip(mine, naive, strict=True))
            rows += [
                [f"idle, {size:,} keys", "-", "-", "-", *others(idle)],
                _row(f"SCAN + DEL, {size:,} keys", naive, "1.00"),
                _row(f"clear_user_cache, {size:,} keys", mine, str(ratio)),
            ]
    bench.table(("what", "took ms", "client CPU ms", "times faster", *WAITS), rows)
    reach = many // 1000  # 1000x of a million: what SCAN costs grows with the keyspace
    good = ratio.median >= reach
    bench.goal(f"clear_user_cache, 3 keys among {many:,}, against SCAN + DEL", f">= {reach:,}x", f"{ratio}x", good)
    above = above_idle(mine, idle)
    bench.goal("the same: somebody else's longest GET above idle", "<= 5 ms", f"{above} ms", above.median <= 5)
    costs = medians[many] / medians[10_000]
    bench.goal(f"the same: cost among {many:,} over cost among 10,000", "about 1", number(costs), costs <= 2)


def _row(what: str, turns: list[Turn], ratio: str) -> list[str]:
    took, client = (Spread.of(getattr(turn, figure) * 1000 for turn in turns) for figure in ("took", "client"))
    return [what, str(took), str(client), ratio, *others(turns)]


async def _compare(space: Keyspace, rounds: int) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """Idle seconds, this layer, and SCAN + DEL, round after round."""
    idle, mine, naive = [], [], []
    for _ in range(rounds):
        idle.append(await space.idle())
        await _three_keys(space)
        turn = await space.watched(space.cache.clear_user_cache(USER))
        search = await space.watched(_search_over(space))
        mine.append(replace(turn, waits=turn.waits + search.waits, held=max(turn.held, search.held)))
        await _three_keys(space)
        naive.append(await space.watched(space.naive_delete(keys.user_pattern(USER), every=True)))
    for turn in (*mine, *naive):
        if turn.removed != 3:
            raise RuntimeError(f"{turn.removed} keys were removed, not 3")
    return idle, mine, naive


async def _three_keys(space: Keyspace) -> None:
    for key in (keys.profile(USER), keys.greeting_instructions(USER), keys.memory(USER, "7")):
        if not await space.cache.set(key, "something about Ann", ttl=key.ttl):
            raise RuntimeError("a key could not be stored")


async def _search_over(space: Keyspace) -> None:
    """Until nobody has scanned for a tenth of a second."""
    before = -1
    while (now := await _scans(space)) != before:
        before = now
        await asyncio.sleep(0.1)


async def _scans(space: Keyspace) -> int:
    stats = await space.redis.info("commandstats")
    return int(stats.get("cmdstat_scan", {}).get("calls", 0))
