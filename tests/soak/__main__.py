"""The soak with its table: ``make soak``, or ``python -m tests.soak --minutes 1``."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import os
import sys
import tempfile
from pathlib import Path

from tests.soak.memory import give_back_what_is_free
from tests.soak.report import broken, details, table
from tests.soak.soak import Course, soak

_MORE = 180.0  # seconds beyond the time asked for, after which something hangs


def main() -> int:
    """Run it. The exit code is 1 if a promise was broken."""
    options = _options()
    give_back_what_is_free()
    faulthandler.dump_traceback_later(options.minutes * 60 + _MORE, exit=True)
    print(f"seed {options.seed}, {options.minutes:g} minutes, {options.rate:g} sessions a minute\n", flush=True)
    course = Course(options.minutes * 60, options.rate, options.seed)
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)  # importing the agent reads the .env of the working directory
        result = asyncio.run(soak(course, Path(directory), lambda line: print(line, flush=True)))
        os.chdir("/")
    wrong = broken(result)
    print(f"\n{table(result)}\n")
    if wrong:
        print(f"{len(wrong)} broken promises: {'; '.join(wrong)}\n{details(result)}")
    else:
        print("0 broken promises")
    faulthandler.cancel_dump_traceback_later()
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long people come (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random (%(default)s)")
    parser.add_argument("--rate", type=float, default=200.0, help="sessions a minute (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
