"""Warm reads: the cost of one caller, and the throughput of many."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.bench import Bench
from benchmarks.comparison import NAIVE, Comparison, Read, compare
from benchmarks.figures import share
from benchmarks.peers import OURS, POOL, REMOTE, Client, open_all

PROFILE = "Name: Ann\nLives in: Oslo\n" + "Likes: long walks by the sea, and the smell of rain on warm stones\n" * 6
PLAN = {"opening": "follow_up", "last_seen": "2026-11-23T17:04:11+00:00", "topic": "how the move to Oslo went"}
VALUES = {"a profile (text, 430 bytes)": PROFILE, "a greeting plan (JSON, 110 bytes)": PLAN}
_POOLED = {NAIVE, "aiocache"}
"""Clients whose pools raise if there are more callers than connections."""


async def run(bench: Bench) -> None:
    """Print the tables and record the targets."""
    async with AsyncExitStack() as stack:
        clients, unavailable = await open_all(stack, bench.server().url, REMOTE)
        for what, value in VALUES.items():
            for name, client in clients.items():
                await client.put(_key(name), value)
            for tasks in (1, 50, 500):
                await _compare(bench, clients, what, value, tasks)
        await _without_limit(bench, clients, unavailable)


def _key(name: str) -> str:
    """Each client reads a key of its own, which it wrote."""
    return f"user:{list(REMOTE).index(name)}:profile"


async def _compare(bench: Bench, clients: dict[str, Client], what: str, value: Any, tasks: int) -> None:
    callers = "one caller" if tasks == 1 else f"{tasks} callers"
    limited = (
        " naive and aiocache are limited to 50 callers at a time: their pools raise at more." if tasks > POOL else ""
    )
    bench.title(f"Warm read of {what}, {callers}", f"Microseconds per read, median [least greatest].{limited}")
    readers = {name: _reader(client, _key(name), tasks if name in _POOLED else 0) for name, client in clients.items()}
    found = await compare(readers, value, tasks=tasks, rounds=bench.pick(9, 3), seconds=bench.pick(0.15, 0.08))
    rows = []
    for name in readers:
        row = [name, str(found.spread(name, "wall").times(1e6)), str(found.spread(name, "cpu").times(1e6))]
        row += [str(found.ratio(NAIVE, name, "wall")), str(found.ratio(name, NAIVE, "cpu")), found.failures(name)]
        rows.append(row)
    bench.table(("client", "wall", "CPU", "throughput / naive", "CPU / naive", "errors"), rows)
    _add_targets(bench, found, what, tasks)


def _reader(client: Client, key: str, tasks: int) -> Read:
    """A reader of the key, limited to the size of the pool if there are more callers."""
    get = client.get
    if tasks <= POOL:
        return lambda: get(key)
    semaphore = asyncio.Semaphore(POOL)

    async def limited() -> Any:
        async with semaphore:
            return await get(key)

    return limited


def _add_targets(bench: Bench, found: Comparison, what: str, tasks: int) -> None:
    kind = what.partition(" (")[0]
    if tasks == 1:
        ratio = found.ratio(OURS, NAIVE, "cpu")
        met = ratio.median <= 0.6 and found.all_correct(OURS)
        bench.target(f"CPU per warm get of {kind}, one caller, against naive", "<= 0.6", str(ratio), met)
    else:
        threshold = 8 if tasks == 50 else 10
        ratio = found.ratio(NAIVE, OURS, "wall")
        met = ratio.median >= threshold and found.all_correct(OURS)
        bench.target(f"throughput against naive, {kind}, {tasks} tasks", f">= {threshold}x", f"{ratio}x", met)


async def _without_limit(bench: Bench, clients: dict[str, Client], unavailable: list[str]) -> None:
    bench.title("500 callers at once, no limit", "Outcomes of 500 concurrent reads of one warm value.")
    rows = []
    for name, client in clients.items():
        await client.put(_key(name), PLAN)
        answers = await asyncio.gather(*(client.get(_key(name)) for _ in range(500)), return_exceptions=True)
        right = sum(answer == PLAN for answer in answers)
        raised = [type(answer).__name__ for answer in answers if isinstance(answer, BaseException)]
        wrong = len(answers) - right - len(raised)
        kinds = ", ".join(sorted(set(raised)))
        rows.append([name, share(right, 500), f"{len(raised)} {kinds}".strip(), str(wrong)])
    bench.table(("client", "correct", "raised", "wrong (a miss)"), rows)
    for line in unavailable:
        bench.note(line)
