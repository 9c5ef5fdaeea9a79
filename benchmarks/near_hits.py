"""A value this process already holds: what a hit costs, and whether it is ever an old one."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

from .bench import Bench
from .child import Child
from .peers import KEEPING, NEAR, Client, Open, naive, open_all
from .rounds import NAIVE, Read, contest
from .warm_reads import PROFILE, VALUES

_KEYS = 300
_WRITES = 2400
_QUIET = 0.5  # seconds after the last write: far more than any push takes


async def run(bench: Bench) -> None:
    """What a hit costs, then what it may be wrong by."""
    async with AsyncExitStack() as stack:
        clients, absent = await open_all(stack, bench.server().url, {NAIVE: naive, **KEEPING})
        for number, (what, value) in enumerate(VALUES.items()):
            await _cost(bench, clients, number, what, value)
        for line in absent:
            bench.note(line)
    await _staleness(bench)


async def _cost(bench: Bench, clients: dict[str, Client], number: int, what: str, value: Any) -> None:
    bench.title(
        f"A hit in the process, {what}", "One caller; microseconds per read, median [least greatest]. naive asks Redis."
    )
    readers = {}
    for index, (name, client) in enumerate(clients.items()):
        key = f"user:{number}-{index}:profile"  # never written twice: some keep what they have read in spite of a write
        await client.put(key, value)
        readers[name] = _reader(client, key)
    found = await contest(readers, value, tasks=1, rounds=bench.pick(9, 3), seconds=bench.pick(0.15, 0.08))
    rows = [
        [
            name,
            str(found.spread(name, "wall").times(1e6)),
            str(found.spread(name, "cpu").times(1e6)),
            str(found.ratio(NAIVE, name, "wall")),
            found.bad(name),
        ]
        for name in readers
    ]
    bench.table(("client", "wall", "CPU", "times faster than naive", "errors"), rows)
    ratio = found.ratio(NAIVE, NEAR, "wall")
    good = ratio.median >= 100 and found.clean(NEAR)
    if value is PROFILE:
        bench.goal("near-cache hit of a profile against naive GET", ">= 100x", f"{ratio}x", good)


def _reader(client: Client, key: str) -> Read:
    get = client.get
    return lambda: get(key)


async def _staleness(bench: Bench) -> None:
    bench.title(
        "Old values after everything is quiet",
        f"{_KEYS} keys, {_WRITES:,} writes by another client while 8 callers read; Redis's replies and pushes reach "
        f"the reader 0-4 ms late, at random.\nHalf a second after the last write each key is read once more.",
    )
    rows = []
    for name, opener in KEEPING.items():
        stale = reads = 0
        try:
            for seed in range(bench.pick(2, 1)):
                old, made = await _stale(bench, opener, seed)
                stale, reads = stale + old, reads + made
        except Exception as problem:  # a peer that cannot do this is shown as such
            rows.append([name, f"does not work here ({type(problem).__name__})", "-"])
            continue
        rows.append([name, f"{stale} of {_KEYS * bench.pick(2, 1)}", f"{reads:,}"])
        if name == NEAR:
            bench.goal("stale entries after quiesce, replies 0-4 ms late", "0", str(stale), stale == 0)
    bench.table(("client", "keys that stay old", "reads meanwhile"), rows)


async def _stale(bench: Bench, opener: Open, seed: int) -> tuple[int, int]:
    """How many keys are still read as something else than what was last written, and how many reads there were."""
    choice = random.Random(seed)
    server = bench.server()
    names = [f"user:{number}:profile" for number in range(_KEYS)]
    truth = dict.fromkeys(names, 0)
    reads, writing = 0, True
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(Child("late_replies", str(server.port), "0", "0.004", str(seed)))
        port = await network.hear()
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
            name = choice.choice(names)
            await writer.put(name, count)
            truth[name] = count
            await asyncio.sleep(choice.uniform(0, 0.001))
        writing = False
        await asyncio.gather(*callers)
        await asyncio.sleep(_QUIET)
        old = 0
        for name in names:
            old += await reader.get(name) != truth[name]
    return old, reads
