"""Runs the soak test and prints its table: ``make soak``, or ``python -m tests.soak --minutes 1``."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import os
import sys
import tempfile
from pathlib import Path

from tests.soak.measures.memory_use import limit_malloc_caching
from tests.soak.report import details, table, violations
from tests.soak.soak import SoakConfig, soak

_GRACE = 180.0  # seconds beyond the requested time, after which the run counts as hung


def main() -> int:
    """Run the soak test.

    Returns:
        The exit code: 1 if an invariant was violated.
    """
    options = _options()
    limit_malloc_caching()
    faulthandler.dump_traceback_later(options.minutes * 60 + _GRACE, exit=True)
    print(f"seed {options.seed}, {options.minutes:g} minutes, {options.rate:g} sessions a minute\n", flush=True)
    config = SoakConfig(options.minutes * 60, options.rate, options.seed)
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)  # importing the agent reads the .env of the working directory
        result = asyncio.run(soak(config, Path(directory), lambda line: print(line, flush=True)))
        os.chdir("/")
    found = violations(result)
    print(f"\n{table(result)}\n")
    if found:
        print(f"{len(found)} violations: {'; '.join(found)}\n{details(result)}")
    else:
        print("0 violations")
    faulthandler.cancel_dump_traceback_later()
    return 1 if found else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long sessions are started (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="random seed (%(default)s)")
    parser.add_argument("--rate", type=float, default=200.0, help="sessions a minute (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
