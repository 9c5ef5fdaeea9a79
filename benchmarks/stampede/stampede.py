"""Stampede on a cold key: loads, waiting times, and commands sent to Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.bench import Bench
from benchmarks.child import Child
from benchmarks.command_monitor import CommandMonitor
from benchmarks.figures import Spread, percentile
from benchmarks.peers import OURS
from benchmarks.stampede.protections import PROTECTIONS

_PROCESSES, _TASKS, _LOADER = 4, 200, 0.5


async def run(bench: Bench) -> None:
    """Print the table and record the targets."""
    bench.title(
        f"A cold key, {_PROCESSES} processes x {_TASKS} tasks, a loader of {_LOADER * 1000:.0f} ms",
        "Median [least greatest] of the rounds. CPU: of all four processes. Commands: all that clients sent.",
    )
    found: dict[str, list[StampedeResult]] = {name: [] for name in PROTECTIONS}
    failed_peers: dict[str, str] = {}
    for number_of_round in range(bench.pick(5, 2)):
        for name in PROTECTIONS:
            if name in failed_peers:
                continue
            try:
                found[name].append(await _stampede(bench, name, f"cold:{number_of_round}"))
            except Exception as problem:  # reported in the table
                failed_peers[name] = f"does not work here ({type(problem).__name__})"
    rows = [
        [name, failed_peers[name], "-", "-", "-", "-", "-"] if name in failed_peers else [name, *_figures(rounds)]
        for name, rounds in found.items()
    ]
    bench.table(("protection", "loads", "p50 ms", "p99 ms", "CPU ms", "Redis commands", "errors"), rows)
    ours = found[OURS]
    loads = max(each.loads for each in ours)
    late = Spread.of((percentile(each.waited, 99) - _LOADER) * 1000 for each in ours)
    commands = Spread.of(each.commands for each in ours)
    all_correct = not any(each.failed for each in ours)
    bench.target("cold key, 4 processes x 200 tasks: loads", "1", str(loads), loads == 1 and all_correct)
    bench.target("the same: p99 above the loader's 500 ms", "<= 50 ms", f"{late} ms", late.median <= 50)
    bench.target("the same: Redis commands in total", "<= 40", str(commands), commands.median <= 40)
    kinds = ours[-1].kinds
    bench.note(f"The commands of {OURS}, last round: {', '.join(f'{n} {kind}' for kind, n in kinds.most_common())}.")


class StampedeResult:
    """The result of one stampede."""

    def __init__(self, answers: list[dict[str, Any]], kinds: Counter[str]) -> None:
        self.loads = sum(answer["loads"] for answer in answers)
        self.waited = [seconds for answer in answers for seconds in answer["waited"]]
        self.failed = [kind for answer in answers for kind in answer["failed"]]
        self.cpu = sum(answer["cpu"] for answer in answers)
        self.kinds = kinds
        self.commands = kinds.total()


def _figures(rounds: list[StampedeResult]) -> list[str]:
    failed = Counter(kind for each in rounds for kind in each.failed)
    return [
        str(Spread.of(each.loads for each in rounds)),
        *(str(Spread.of(percentile(each.waited, percent) * 1000 for each in rounds)) for percent in (50, 99)),
        str(Spread.of(each.cpu * 1000 for each in rounds)),
        str(Spread.of(each.commands for each in rounds)),
        ", ".join(f"{count} {kind}" for kind, count in failed.items()) or "0",
    ]


async def _stampede(bench: Bench, name: str, key: str) -> StampedeResult:
    """Run one stampede on a server of its own, so that only its commands are counted."""
    server = bench.server()
    async with AsyncExitStack() as stack:
        children = [
            await stack.enter_async_context(
                Child("stampede.stampede_worker", name, server.url, str(_TASKS), str(_LOADER))
            )
            for _ in range(_PROCESSES)
        ]
        await asyncio.gather(*(child.receive() for child in children))
        async with CommandMonitor(server.port) as monitor:
            answers = await asyncio.gather(*(child.ask(key) for child in children))
            kinds = await monitor.kinds()
    return StampedeResult(answers, kinds)
