"""A value that is there, read again: what one caller pays, and what many at once get."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from .bench import Bench
from .figures import share
from .peers import OURS, POOL, REMOTE, Client, open_all
from .rounds import NAIVE, Contest, Read, contest

PROFILE = "Name: Ann\nLives in: Oslo\n" + "Likes: long walks by the sea, and the smell of rain on warm stones\n" * 6
PLAN = {"opening": "follow_up", "last_seen": "2026-11-23T17:04:11+00:00", "topic": "how the move to Oslo went"}
VALUES = {"a profile (text, 430 bytes)": PROFILE, "a greeting plan (JSON, 110 bytes)": PLAN}
_POOLED = {NAIVE, "aiocache"}
"""Their pools raise when more callers come than there are connections."""


async def run(bench: Bench) -> None:
    """The tables, and the rows of the issue."""
    async with AsyncExitStack() as stack:
        clients, absent = await open_all(stack, bench.server().url, REMOTE)
        for what, value in VALUES.items():
            for name, client in clients.items():
                await client.put(_key(name), value)
            for tasks in (1, 50, 500):
                await _compare(bench, clients, what, value, tasks)
        await _without_a_gate(bench, clients, absent)


def _key(name: str) -> str:
    """Each client has a key of its own: it reads what it wrote."""
    return f"user:{list(REMOTE).index(name)}:profile"


async def _compare(bench: Bench, clients: dict[str, Client], what: str, value: Any, tasks: int) -> None:
    callers = "one caller" if tasks == 1 else f"{tasks} callers"
    gated = " naive and aiocache go through a gate of 50: their pool raises at more." if tasks > POOL else ""
    bench.title(f"Warm read of {what}, {callers}", f"Microseconds per read, median [least greatest].{gated}")
    readers = {name: _reader(client, _key(name), tasks if name in _POOLED else 0) for name, client in clients.items()}
    found = await contest(readers, value, tasks=tasks, rounds=bench.pick(9, 3), seconds=bench.pick(0.15, 0.08))
    rows = []
    for name in readers:
        row = [name, str(found.spread(name, "wall").times(1e6)), str(found.spread(name, "cpu").times(1e6))]
        row += [str(found.ratio(NAIVE, name, "wall")), str(found.ratio(name, NAIVE, "cpu")), found.bad(name)]
        rows.append(row)
    bench.table(("client", "wall", "CPU", "throughput / naive", "CPU / naive", "errors"), rows)
    _judge(bench, found, what, tasks)


def _reader(client: Client, key: str, tasks: int) -> Read:
    """Reads the key; through a gate where more callers come than the pool has connections."""
    get = client.get
    if tasks <= POOL:
        return lambda: get(key)
    gate = asyncio.Semaphore(POOL)

    async def gated() -> Any:
        async with gate:
            return await get(key)

    return gated


def _judge(bench: Bench, found: Contest, what: str, tasks: int) -> None:
    kind = what.partition(" (")[0]
    if tasks == 1:
        ratio = found.ratio(OURS, NAIVE, "cpu")
        good = ratio.median <= 0.6 and found.clean(OURS)
        bench.goal(f"CPU per warm get of {kind}, one caller, against naive", "<= 0.6", str(ratio), good)
    else:
        reach = 8 if tasks == 50 else 10
        ratio = found.ratio(NAIVE, OURS, "wall")
        good = ratio.median >= reach and found.clean(OURS)
        bench.goal(f"throughput against naive, {kind}, {tasks} tasks", f">= {reach}x", f"{ratio}x", good)


async def _without_a_gate(bench: Bench, clients: dict[str, Client], absent: list[str]) -> None:
    bench.title("500 callers at once, no gate", "What becomes of 500 reads of one warm value that are begun together.")
    rows = []
    for name, client in clients.items():
        await client.put(_key(name), PLAN)
        answers = await asyncio.gather(*(client.get(_key(name)) for _ in range(500)), return_exceptions=True)
        right = sum(answer == PLAN for answer in answers)
        raised = [type(answer).__name__ for answer in answers if isinstance(answer, BaseException)]
        wrong = len(answers) - right - len(raised)
        kinds = ", ".join(sorted(set(raised)))
        rows.append([name, share(right, 500), f"{len(raised)} {kinds}".strip(), str(wrong)])
    bench.table(("client", "answered right", "raised", "something else (a miss)"), rows)
    for line in absent:
        bench.note(line)
