"""Runs the whole suite and prints its tables: ``make chaos``, or ``python -m tests.faults --only OOM``."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from tests.faults.harness.faults import FAULTS
from tests.faults.harness.scenario import PHASES, run_scenario
from tests.faults.harness.table import (
    ISOLATION,
    NOTES,
    TOPOLOGY,
    header,
    isolation_row,
    load_row,
    scenario_row,
    store_row,
    topology_row,
)
from tests.faults.harness.table import LOAD as LOAD_COLUMNS
from tests.faults.harness.table import STORE as STORE_COLUMNS
from tests.faults.harness.worker_setup import mute_logs
from tests.faults.load.load_targets import TARGETS
from tests.faults.store.store_environment import STORE_FAULTS
from tests.faults.store.store_scenario import STORE_PHASES, run_store_scenario
from tests.faults.topology.places import ClusterPlace, Place, address_place, cluster_place, sentinel_place
from tests.faults.topology.topology_faults import TOPOLOGY_FAULTS, TopologyFault
from tests.faults.topology.topology_scenario import run_topology_scenario
from tests.isolation.suite import CASE_COUNTS, run_in_process
from tests.real.redis.redis_server import RedisServer
from tests.real.supabase.postgres import Postgres

CALLS: Final = {"multiplexer": 170_000, "get_or_load": 50_000, "SQLite": 10_000, "Supabase": 5_000, "pool": 115_000}
"""Enough for 100,000 cancellations each on multiplexer and pool; the pool is slowest and takes the remaining time."""
_WIND_DOWN: Final = 15.0  # seconds reserved for draining background work


def main() -> int:
    """Run the selected parts.

    Returns:
        The exit code: 1 if an invariant was violated.
    """
    options = _options()
    faulthandler.dump_traceback_later(options.seconds, exit=True)
    stop_at = time.monotonic() + options.seconds - _WIND_DOWN
    mute_logs()
    print(f"seed {options.seed}, at most {options.seconds:.0f} s\n")
    with _directory() as directory:
        os.chdir(directory)  # importing the agent reads the .env of the working directory
        violations = sum(
            run(options.only, options.seed, stop_at)
            for run in (_run_scenarios, _run_topologies, _run_store_and_isolation, _run_load)
        )
        os.chdir("/")
    print(f"\n{NOTES}\n\n{violations} violations, {time.monotonic() - stop_at + options.seconds - _WIND_DOWN:.0f} s")
    faulthandler.cancel_dump_traceback_later()
    return 1 if violations else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="random seed (%(default)s)")
    parser.add_argument("--only", default="", help="only faults and load targets whose name contains this")
    parser.add_argument("--seconds", type=float, default=420.0, help="time budget in seconds (%(default)s)")
    return parser.parse_args()


def _run_scenarios(only: str, seed: int, stop_at: float) -> int:
    violations = 0
    selected = [(fault, phase) for fault in FAULTS if only in fault.name for phase in PHASES]
    if selected:
        print(header())
    for fault, phase in selected:
        if time.monotonic() > stop_at:
            print("the time budget is used up; the remaining scenarios were not run")
            return violations + 1
        with _directory() as directory:
            result = asyncio.run(run_scenario(fault, phase, directory, seed))
        print(scenario_row(result), flush=True)
        violations += len(result.violations)
    return violations


def _run_topologies(only: str, seed: int, stop_at: float) -> int:
    violations = 0
    selected = [fault for fault in TOPOLOGY_FAULTS if only in str(fault)]
    if selected:
        print(f"\n{header(TOPOLOGY)}")
    with _places() as place_of:
        for fault in selected:
            if time.monotonic() > stop_at:
                print("the time budget is used up; the remaining scenarios were not run")
                return violations + 1
            with place_of(fault) as place:
                result = asyncio.run(run_topology_scenario(fault, place))
            print(topology_row(result), flush=True)
            violations += len(result.violations)
    return violations


@contextmanager
def _places() -> Iterator[Callable[[TopologyFault], AbstractContextManager[Place]]]:
    """Where each fault happens: one cluster for all of them, which settles in between, and other servers for each."""
    with ExitStack() as stack:
        clusters: list[ClusterPlace] = []

        @contextmanager
        def place_of(fault: TopologyFault) -> Iterator[Place]:
            if fault.kind == "cluster":
                if not clusters:
                    clusters.append(stack.enter_context(cluster_place(stack.enter_context(_directory()))))
                clusters[0].cluster.settle()
                clusters[0].cluster.flush()
                clusters[0].about()
                yield clusters[0]
            else:
                make = sentinel_place if fault.kind == "Sentinel" else address_place
                with _directory() as directory, make(directory) as place:
                    yield place

        yield place_of


def _run_store_and_isolation(only: str, seed: int, stop_at: float) -> int:
    """Run both concurrently: the store scenarios mostly wait, the isolation cases are CPU-bound."""
    violations = 0
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        isolation = pool.submit(run_in_process, CASE_COUNTS, seed, stop_at) if only in "isolation" else None
        violations += _run_store_scenarios(only, stop_at)
        if isolation is not None:
            result = isolation.result()
            print(f"\n{header(ISOLATION)}\n{isolation_row(result)}", flush=True)
            violations += len(result.violations)
    return violations


def _run_store_scenarios(only: str, stop_at: float) -> int:
    violations = 0
    selected = [(fault, phase) for fault in STORE_FAULTS if only in str(fault) for phase in STORE_PHASES]
    if not selected:
        return 0
    print(f"\n{header(STORE_COLUMNS)}")
    with _directory() as redis_directory, RedisServer(redis_directory) as redis, Postgres() as postgres:
        for fault, phase in selected:
            if time.monotonic() > stop_at:
                print("the time budget is used up; the remaining scenarios were not run")
                return violations + 1
            with _directory() as directory:
                result = asyncio.run(run_store_scenario(fault, phase, directory, redis, postgres))
            print(store_row(result), flush=True)
            violations += len(result.violations)
    return violations


def _run_load(only: str, seed: int, stop_at: float) -> int:
    violations = 0
    selected = [name for name in CALLS if only in name]
    if selected:
        print(f"\n{header(LOAD_COLUMNS)}")
    for name in selected:
        with _directory() as directory:
            result = asyncio.run(TARGETS[name](directory, CALLS[name], seed, stop_at))
        print(load_row(result), flush=True)
        violations += len(result.violations)
    return violations


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


if __name__ == "__main__":
    sys.exit(main())
