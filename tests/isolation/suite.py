"""Runs all kinds of isolation cases in sequence, seeded, with a count for each."""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from random import Random
from typing import Final

from tests.faults.harness.worker_setup import mute_logs
from tests.isolation.cases.erasure_cases import erasures
from tests.isolation.cases.function_cases import functions
from tests.isolation.cases.parsing_cases import identities, key_parts, metadata, patterns
from tests.isolation.cases.session_cases import conversations
from tests.isolation.cases.tool_cases import cache_tools, cached_schemas, operators, profile_tools, unknown_callers
from tests.isolation.result import Result
from tests.isolation.runner import Runner, open_runner

CaseRunner = Callable[[Runner, Random, int], Awaitable[int]]
CASES: Final[dict[str, CaseRunner]] = {
    "identities": identities,
    "metadata": metadata,
    "key parts": key_parts,
    "patterns": patterns,
    "cache tools": cache_tools,
    "operators": operators,
    "unknown callers": unknown_callers,
    "profile tools": profile_tools,
    "functions": functions,
    "conversations": conversations,
    "erasures": erasures,
}
CASE_COUNTS: Final = {
    "identities": 27_000,
    "metadata": 16_000,
    "key parts": 16_000,
    "patterns": 24_000,
    "cache tools": 7_000,
    "operators": 1_500,
    "unknown callers": 4_500,
    "profile tools": 5_000,
    "functions": 4_000,
    "conversations": 500,
    "erasures": 500,
}
"""Cases of each kind: 106,000, of which 23,000 use Redis, the store and the tools."""


async def run_suite(directory: Path, counts: Mapping[str, int], seed: int, deadline: float = math.inf) -> Result:
    """Run the cases.

    Args:
        deadline: ``time.monotonic`` after which no further batch begins.
    """
    with cached_schemas():
        async with open_runner(directory, deadline) as runner:
            for kind, count in counts.items():
                began = time.perf_counter()
                runner.result.cases[kind] = await CASES[kind](runner, Random(f"{seed} {kind}"), count)
                runner.result.seconds[kind] = time.perf_counter() - began
    return runner.result


def run_in_process(counts: Mapping[str, int], seed: int, deadline: float) -> Result:
    """Run the suite as the task of a process of its own."""
    mute_logs()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)  # importing the agent reads the .env of the working directory
        try:
            return asyncio.run(run_suite(Path(directory), counts, seed, deadline))
        finally:
            os.chdir("/")
