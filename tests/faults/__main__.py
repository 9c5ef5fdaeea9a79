"""The whole suite with its tables: ``make chaos``, or ``python -m tests.faults --only OOM``."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from tests.faults.faults import FAULTS
from tests.faults.store_trial import STORE_PLACES, store_trial
from tests.faults.store_world import STORE_FAULTS
from tests.faults.storms import STORMS
from tests.faults.surroundings import silence
from tests.faults.table import ISOLATION, NOTES, heads, isolation_line, store_line, storm_line, trial_line
from tests.faults.table import STORE as STORE_COLUMNS
from tests.faults.table import STORMS as STORM_COLUMNS
from tests.faults.trial import PLACES, trial
from tests.isolation.suite import CASE_COUNTS, run_in_process
from tests.real.postgres import Postgres
from tests.real.redis_server import RedisServer

CALLS: Final = {"lane": 170_000, "get_or_load": 50_000, "SQLite": 10_000, "Supabase": 5_000, "pool": 115_000}
"""So that 100,000 are cancelled on the lane and on the pool; the pool, which takes longest, gets what time is left."""
_LAST: Final = 15.0  # seconds kept for coming to rest


def main() -> int:
    """Run what was asked for. The exit code is 1 if a promise was broken."""
    options = _options()
    faulthandler.dump_traceback_later(options.seconds, exit=True)
    ends = time.monotonic() + options.seconds - _LAST
    silence()
    print(f"seed {options.seed}, at most {options.seconds:.0f} s\n")
    with _directory() as elsewhere:
        os.chdir(elsewhere)  # importing the agent reads the .env of the working directory
        broken = sum(part(options.only, options.seed, ends) for part in (_trials, _store_and_isolation, _storms))
        os.chdir("/")
    print(f"\n{NOTES}\n\n{broken} broken promises, {time.monotonic() - ends + options.seconds - _LAST:.0f} s")
    faulthandler.cancel_dump_traceback_later()
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of all that is random (%(default)s)")
    parser.add_argument("--only", default="", help="faults and storms whose name contains this")
    parser.add_argument("--seconds", type=float, default=300.0, help="time there is (%(default)s)")
    return parser.parse_args()


def _trials(only: str, seed: int, ends: float) -> int:
    broken = 0
    chosen = [(fault, place) for fault in FAULTS if only in fault.name for place in PLACES]
    if chosen:
        print(heads())
    for fault, place in chosen:
        if time.monotonic() > ends:
            print("there was no time for the rest")
            return broken + 1
        with _directory() as directory:
            outcome = asyncio.run(trial(fault, place, directory, seed))
        print(trial_line(outcome), flush=True)
        broken += len(outcome.broken)
    return broken


def _store_and_isolation(only: str, seed: int, ends: float) -> int:
    """Both at once: the one mostly waits, and the other counts."""
    broken = 0
    with ProcessPoolExecutor(1, get_context("spawn")) as beside:
        hostile = beside.submit(run_in_process, CASE_COUNTS, seed, ends) if only in "isolation" else None
        broken += _store_trials(only, ends)
        if hostile is not None:
            result = hostile.result()
            print(f"\n{heads(ISOLATION)}\n{isolation_line(result)}", flush=True)
            broken += len(result.violations)
    return broken


def _store_trials(only: str, ends: float) -> int:
    broken = 0
    chosen = [(fault, place) for fault in STORE_FAULTS if only in str(fault) for place in STORE_PLACES]
    if not chosen:
        return 0
    print(f"\n{heads(STORE_COLUMNS)}")
    with _directory() as place_of_redis, RedisServer(place_of_redis) as redis, Postgres() as postgres:
        for fault, place in chosen:
            if time.monotonic() > ends:
                print("there was no time for the rest")
                return broken + 1
            with _directory() as directory:
                outcome = asyncio.run(store_trial(fault, place, directory, redis, postgres))
            print(store_line(outcome), flush=True)
            broken += len(outcome.broken)
    return broken


def _storms(only: str, seed: int, ends: float) -> int:
    broken = 0
    chosen = [name for name in CALLS if only in name]
    if chosen:
        print(f"\n{heads(STORM_COLUMNS)}")
    for name in chosen:
        with _directory() as directory:
            storm = asyncio.run(STORMS[name](directory, CALLS[name], seed, ends))
        print(storm_line(storm), flush=True)
        broken += len(storm.broken)
    return broken


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


if __name__ == "__main__":
    sys.exit(main())
