"""Write path: what a turn costs on its way through the write-behind queue, with a healthy store."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.figures import Spread
from companion.runtime import Runtime, close_runtime, set_runtime
from companion.store import DataKind, Turn

RATE: Final = 50
"""Turns per second."""
_USERS: Final = 10
Store = Callable[[str, Turn], None]


async def run(bench: Bench) -> None:
    """Print the table and record the targets."""
    turns, rounds = bench.pick(150, 75), bench.pick(9, 3)
    bench.title(
        f"{RATE} turns a second through the write path",
        f"{turns} turns of {_USERS} users, {rounds} rounds; microseconds of CPU per turn, SQLite's thread included.\n"
        "Both ways write to the store, invalidate and acknowledge. Through the queue, a turn that the store does not "
        "take\nwithin a quarter of a second is spooled.",
    )
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        os.environ |= {"REDIS_URL": bench.server().url, "COMPANION_HOME": home}
        runtime = set_runtime(Runtime())
        await runtime.store.get_profile("nobody")  # creates the file
        ways = {"directly": _directly(runtime), "through the queue": _through_the_queue(runtime)}
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            for name in list(ways)[:: 1 if number % 2 else -1]:
                cpu[name].append(await _cpu_per_turn(ways[name], turns))
        spooled = (Path(home) / "unstored").exists()
        await close_runtime()
    bench.table(("way", "CPU"), [(name, str(Spread.of(samples).times(1e6))) for name, samples in cpu.items()])
    directly, queued = cpu.values()
    ratio = Spread.of(one / other for one, other in zip(queued, directly, strict=True))
    bench.target("CPU per stored turn through the queue, against directly", "<= 1.2", str(ratio), ratio.median <= 1.2)
    bench.target("the same: files of the spool", "0", "some" if spooled else "0", not spooled)


def _directly(runtime: Runtime) -> Store:
    async def write(user_id: str, turn: Turn) -> DataKind:
        await runtime.store.add_turn(user_id, turn)
        return "turn"

    return lambda user_id, turn: _ignore(runtime.outbox_relay.start_write(write(user_id, turn), user_id))


def _through_the_queue(runtime: Runtime) -> Store:
    return lambda user_id, turn: runtime.write_behind.add(user_id, turn)


def _ignore(_: object) -> None:
    pass


async def _cpu_per_turn(store: Store, turns: int) -> float:
    cpu, began = time.process_time(), time.perf_counter()
    for number in range(turns):
        turn = Turn("user", f"turn {number}: I like chess, and tea in the afternoon", datetime.now(UTC), "c")
        store(f"user-{number % _USERS}", turn)
        await asyncio.sleep(max(0.0, began + (number + 1) / RATE - time.perf_counter()))
    await asyncio.sleep(0.5)  # the last ones, and the queue's timers
    return (time.process_time() - cpu) / turns
