"""Hits in the process: their cost, and whether they can stay stale."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.bench import Bench
from benchmarks.child import Child
from benchmarks.comparison import NAIVE, Read, compare
from benchmarks.peers import LOCAL, NEAR, Client, Open, naive, open_all
from benchmarks.reads.warm_reads import PROFILE, VALUES

_KEYS = 300
_WRITES = 2400
_QUIESCE = 0.5  # seconds after the last write: far longer than any push takes


async def run(bench: Bench) -> None:
    """Measure the cost of a hit, then staleness."""
    async with AsyncExitStack() as stack:
        clients, unavailable = await open_all(stack, bench.server().url, {NAIVE: naive, **LOCAL})
        for number, (what, value) in enumerate(VALUES.items()):
            await _cost(bench, clients, number, what, value)
        for line in unavailable:
            bench.note(line)
    await _staleness(bench)


async def _cost(bench: Bench, clients: dict[str, Client], number: int, what: str, value: Any) -> None:
    bench.title(
        f"A hit in the process, {what}",
        "One caller; microseconds per read, median [least greatest]. naive reads from Redis.",
    )
    readers = {}
    for index, (name, client) in enumerate(clients.items()):
        key = f"user:{number}-{index}:profile"  # written once: some clients keep a value in spite of a later write
        await client.put(key, value)
        readers[name] = _reader(client, key)
    found = await compare(readers, value, tasks=1, rounds=bench.pick(9, 3), seconds=bench.pick(0.15, 0.08))
    rows = [
        [
            name,
            str(found.spread(name, "wall").times(1e6)),
            str(found.spread(name, "cpu").times(1e6)),
            str(found.ratio(NAIVE, name, "wall")),
            found.failures(name),
        ]
        for name in readers
    ]
    bench.table(("client", "wall", "CPU", "times faster than naive", "errors"), rows)
    ratio = found.ratio(NAIVE, NEAR, "wall")
    met = ratio.median >= 100 and found.all_correct(NEAR)
    if value is PROFILE:
        bench.target("near-cache hit of a profile against naive GET", ">= 100x", f"{ratio}x", met)


def _reader(client: Client, key: str) -> Read:
    get = client.get
    return lambda: get(key)


async def _staleness(bench: Bench) -> None:
    bench.title(
        "Stale values after quiescence",
        f"{_KEYS} keys, {_WRITES:,} writes by another client while 8 callers read; Redis's replies and pushes reach "
        f"the reader 0-4 ms late, at random.\nHalf a second after the last write each key is read once more.",
    )
    rows = []
    for name, opener in LOCAL.items():
        stale = reads = 0
        try:
            for seed in range(bench.pick(2, 1)):
                old, made = await _count_stale(bench, opener, seed)
                stale, reads = stale + old, reads + made
        except Exception as problem:  # reported in the table
            rows.append([name, f"does not work here ({type(problem).__name__})", "-"])
            continue
        rows.append([name, f"{stale} of {_KEYS * bench.pick(2, 1)}", f"{reads:,}"])
        if name == NEAR:
            bench.target("stale entries after quiesce, replies 0-4 ms late", "0", str(stale), stale == 0)
    bench.table(("client", "stale keys", "reads meanwhile"), rows)


async def _count_stale(bench: Bench, opener: Open, seed: int) -> tuple[int, int]:
    """Count the keys whose last written value is not read, and the reads made."""
    rng = random.Random(seed)
    server = bench.server()
    names = [f"user:{number}:profile" for number in range(_KEYS)]
    written = dict.fromkeys(names, 0)
    reads, writing = 0, True
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(Child("delay_proxy", str(server.port), "0", "0.004", str(seed)))
        port = await network.receive()
        writer = await stack.enter_async_context(opener(server.url))
        for name in names:
            await writer.put(name, 0)
        reader = await stack.enter_async_context(opener(f"redis://127.0.0.1:{port}/0"))

        async def read(order: random.Random) -> None:
            nonlocal reads
            while writing:
                await reader.get(order.choice(names))
                reads += 1
                await asyncio.sleep(0)

        callers = [asyncio.create_task(read(random.Random(f"{seed}:{caller}"))) for caller in range(8)]
        for count in range(1, _WRITES + 1):
            name = rng.choice(names)
            await writer.put(name, count)
            written[name] = count
            await asyncio.sleep(rng.uniform(0, 0.001))
        writing = False
        await asyncio.gather(*callers)
        await asyncio.sleep(_QUIESCE)
        old = 0
        for name in names:
            old += await reader.get(name) != written[name]
    return old, reads
