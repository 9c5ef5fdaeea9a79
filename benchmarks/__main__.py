"""``python -m benchmarks [quick] [table ...]``: run the tables, print them, and say what was reached."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version

from tests.real.redis_server import server_version

from . import (
    clearing,
    connections,
    documented,
    hit_rates,
    invalidation_lag,
    near_hits,
    session_start,
    stampede,
    sweeping,
    warm_reads,
)
from .bench import Bench

TABLES: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "warm_reads": warm_reads.run,
    "near_hits": near_hits.run,
    "invalidation_lag": invalidation_lag.run,
    "stampede": stampede.run,
    "session_start": session_start.run,
    "connections": connections.run,
    "documented": documented.run,
    "hit_rates": hit_rates.run,
    "clearing": clearing.run,
    "sweeping": sweeping.run,
}
_PACKAGES = ("redis", "hiredis", "cashews", "aiocache", "coredis", "valkey-glide", "dogpile.cache")


def _about(bench: Bench) -> str:
    def installed(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return f"{name} not installed"

    binary = bench.server().binary
    server = f"{binary.name} {'.'.join(map(str, server_version(binary)))}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cores} cores, Python {platform.python_version()}, {server} over loopback TCP; "
        f"{', '.join(map(installed, _PACKAGES))}. {'Quick' if bench.quick else 'Full'} run."
    )


async def main(words: list[str]) -> int:
    """Run what is asked for; everything where nothing is named."""
    unknown = [word for word in words if word not in TABLES and word != "quick"]
    if unknown:
        print(f"no such table: {', '.join(unknown)}. There are: quick, {', '.join(TABLES)}", file=sys.stderr)
        return 2
    wanted = [word for word in words if word in TABLES] or list(TABLES)
    began = time.monotonic()
    # What the cache says of a server that others hold, or that is far away on purpose, is no news here.
    logging.getLogger("cache").setLevel(logging.ERROR)
    with Bench("quick" in words) as bench:
        print(f"# Benchmarks\n\n{_about(bench)}")
        for name in wanted:
            await TABLES[name](bench)
        if bench.goals:
            bench.title("What was to be reached")
            bench.table(
                ("what", "reach", "measured", "reached"),
                [(goal.what, goal.reach, goal.measured, "yes" if goal.reached else "NO") for goal in bench.goals],
            )
        bench.note(f"{time.monotonic() - began:.0f} seconds in all.")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
