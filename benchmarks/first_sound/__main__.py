"""``make trace``: how long a caller waits for the first sound, and what it waits for, beside the floor of the same run.

The worker is a real one, in rooms of a stand-in LiveKit server, with a model whose first token takes 500 ms and a voice
whose first byte takes 300 ms, both at the wire. Time passes for Redis and the store only. Each figure is the median of
five; times are from the moment the agent is in the room.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.first_sound.elapsed import let_pass
from benchmarks.first_sound.picture import FIGURES
from benchmarks.first_sound.picture import main as draw_picture
from benchmarks.first_sound.stage import FIRST_BYTE, FIRST_TOKEN, STEPS, Stage, Start, stage
from companion.phrases import phrases
from tests.real.redis.redis_server import RedisServer

ROUNDS: Final = 5
DAY: Final = 86_400.0
RETURNS: Final = {
    "dropped call": 5.0,
    "a minute later": 60.0,
    "half an hour later": 1_800.0,
    "a week later": 6.5 * DAY,  # speech lives for seven days
}
"""Seconds between the end of a conversation and the next."""
FLOOR: Final = "floor: frames from memory"
OTHERS: Final = {FLOOR: "floor_agent.py", "stock agent: model, then voice": "stock_agent.py"}
"""What the companion is compared with, in the same run."""
Starts = dict[str, list[Start]]


async def silent_store() -> asyncio.Server:
    """A store that takes every request and answers none."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65_536):
                pass
        finally:
            writer.close()

    return await asyncio.start_server(take, "127.0.0.1", 0)


async def play_round(
    number: int, others: dict[str, Stage], worker: Stage, redis: RedisServer, home: Path, starts: Starts
) -> None:
    """One start of every kind: the same person comes back again and again."""
    user = f"caller{number}"
    for name, other in others.items():
        job, start = await other.start(user)
        starts.setdefault(name, []).append(start)
        await job.end()
    job, start = await worker.start(user)
    starts.setdefault("first meeting", []).append(start)
    for name, seconds in RETURNS.items():
        await worker.converse(job, "I prepare a chess tournament.")
        let_pass(seconds, redis, home / "companion.db")
        job, start = await worker.start(user)
        starts.setdefault(name, []).append(start)
    worker.ending.append(asyncio.create_task(job.end()))


async def measure(rounds: int = ROUNDS) -> Starts:
    """Run all of it."""
    starts: Starts = {}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis, spare = (stack.enter_context(RedisServer(folder / name)) for name in ("redis", "spare"))
        home = folder / "worker" / "home"
        others = {
            name: await stack.enter_async_context(stage(f"benchmarks/first_sound/{file}", folder / file / "home"))
            for name, file in OTHERS.items()
        }
        said = phrases("en")
        worker = await stack.enter_async_context(stage("agent.py", home, speaks=said, REDIS_URL=redis.url))
        for number in range(rounds):
            await play_round(number, others, worker, redis, home, starts)
            print(".", end="", flush=True, file=sys.stderr)
        store = await silent_store()
        stack.callback(store.close)
        options = {
            "REDIS_URL": spare.url,
            "SUPABASE_URL": f"http://127.0.0.1:{store.sockets[0].getsockname()[1]}",
            "SUPABASE_SECRET_KEY": "sb_secret_test",
        }
        silent = await stack.enter_async_context(stage("agent.py", folder / "silent" / "home", speaks=said, **options))
        for number in range(rounds):
            job, start = await silent.start(f"caller{number}")
            starts.setdefault("store silent", []).append(start)
            await job.end(timeout=40.0)
            print(".", end="", flush=True, file=sys.stderr)
    return starts


def table(starts: Starts) -> str:
    """The table, as Markdown."""
    zero = median(start.first_sound for start in starts[FLOOR])
    lines = [
        "| start | first sound after joining | above the floor | model calls | voice calls |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, runs in starts.items():
        times = [start.first_sound * 1000 for start in runs]
        middle = median(times)
        models, voices = (median(values) for values in zip(*((one.models, one.voices) for one in runs), strict=True))
        lines.append(
            f"| {name} | {middle:,.0f} ms [{min(times):,.0f} {max(times):,.0f}] | {middle - zero * 1000:+,.0f} ms "
            f"| {models:g} | {voices:g} |"
        )
    return "\n".join(lines)


def picture(starts: Starts) -> str:
    """The way to the first sound, of the median start of each kind."""
    width, lines = 60, []
    end = max(start.first_sound for runs in starts.values() for start in runs)
    marks = dict(zip(STEPS, "|cps♪", strict=True))
    for name, runs in starts.items():
        start = sorted(runs, key=lambda one: one.first_sound)[len(runs) // 2]
        row = ["·"] * (round(start.first_sound / end * width) + 1)
        for step, at in sorted(start.moments.items(), key=lambda one: one[1]):
            row[min(round(at / end * width), len(row) - 1)] = marks[step]
        lines.append(f"  {name:<36} {''.join(row)} {start.first_sound * 1000:,.0f} ms")
    lines.append(f"  {'':<36} | in the room, c receives, p publishes, s is subscribed to, ♪ is heard")
    return "\n".join(lines)


def figures(starts: Starts) -> dict[str, Any]:
    """What ``docs/pictures/first-sound.svg`` is drawn from."""
    rows = []
    for name, runs in starts.items():
        times = [round(start.first_sound * 1000) for start in runs]
        middle = sorted(runs, key=lambda one: one.first_sound)[len(runs) // 2]
        rows.append(
            {
                "name": name,
                "median_ms": round(median(times)),
                "least_ms": min(times),
                "greatest_ms": max(times),
                "model_calls": median(start.models for start in runs),
                "voice_calls": median(start.voices for start in runs),
                "steps_ms": {step: round(at * 1000) for step, at in middle.moments.items()},
            }
        )
    delays = {"first_token_ms": round(FIRST_TOKEN * 1000), "first_byte_ms": round(FIRST_BYTE * 1000)}
    return {"measured": f"{date.today()}", "rounds": len(starts[FLOOR]), **delays, "rows": rows}


def main() -> int:
    """Measure, print, and keep the figures of a whole run for the picture in the README."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    starts = asyncio.run(measure(rounds))
    if rounds >= ROUNDS:
        FIGURES.write_text(f"{json.dumps(figures(starts), indent=1)}\n")
        draw_picture()
    print(f"\nA model whose first token takes {FIRST_TOKEN * 1000:.0f} ms, a voice whose first byte takes ", end="")
    print(f"{FIRST_BYTE * 1000:.0f} ms; medians of {len(starts['first meeting'])} [least greatest].\n")
    print(table(starts))
    print()
    print(picture(starts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
