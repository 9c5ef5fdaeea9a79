"""``python -m benchmarks [quick] [table ...]``: run the benchmarks and print their tables and the targets met."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version

from benchmarks.bench import Bench
from benchmarks.conversations import connections, documented, hit_rates, session_start, write_path
from benchmarks.fleet import fleet
from benchmarks.invalidation import clear_user_cache, invalidate_pattern, invalidation_lag, one_user
from benchmarks.reads import cluster_reads, near_hits, warm_reads
from benchmarks.stampede import stampede
from tests.real.redis.redis_server import server_version

TABLES: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "warm_reads": warm_reads.run,
    "near_hits": near_hits.run,
    "invalidation_lag": invalidation_lag.run,
    "stampede": stampede.run,
    "session_start": session_start.run,
    "connections": connections.run,
    "documented": documented.run,
    "hit_rates": hit_rates.run,
    "clear_user_cache": clear_user_cache.run,
    "one_user": one_user.run,
    "invalidate_pattern": invalidate_pattern.run,
    "write_path": write_path.run,
    "cluster_reads": cluster_reads.run,
}
APART: dict[str, Callable[[Bench], Awaitable[None]]] = {"fleet": fleet.run}
"""Those that run only when they are named: they mostly wait."""
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


async def main(arguments: list[str]) -> int:
    """Run the named tables, or all of them if none is named."""
    every = TABLES | APART
    unknown = [argument for argument in arguments if argument not in every and argument != "quick"]
    if unknown:
        print(f"no such table: {', '.join(unknown)}. There are: quick, {', '.join(every)}", file=sys.stderr)
        return 2
    selected = [argument for argument in arguments if argument in every] or list(TABLES)
    began = time.monotonic()
    # The cache would warn about servers that are busy or delayed on purpose.
    logging.getLogger("cache").setLevel(logging.ERROR)
    with Bench("quick" in arguments) as bench:
        print(f"# Benchmarks\n\n{_about(bench)}")
        for name in selected:
            await every[name](bench)
        if bench.targets:
            bench.title("Targets")
            bench.table(
                ("what", "target", "measured", "met"),
                [
                    (target.what, target.threshold, target.measured, "yes" if target.met else "NO")
                    for target in bench.targets
                ],
            )
        bench.note(f"{time.monotonic() - began:.0f} seconds in total.")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
