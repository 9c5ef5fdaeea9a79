"""All kinds of cases, one after the other, seeded: so many of each."""

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

from tests.faults.surroundings import silence
from tests.isolation.conversations import conversations
from tests.isolation.functions import functions
from tests.isolation.names import identities, key_parts, metadata, patterns
from tests.isolation.stage import Stage, stage
from tests.isolation.tool_calls import cache_tools, nobodies, operators, profile_tools, schemas_made_once
from tests.isolation.verdict import Verdict

Kind = Callable[[Stage, Random, int], Awaitable[int]]
KINDS: Final[dict[str, Kind]] = {
    "identities": identities,
    "metadata": metadata,
    "key parts": key_parts,
    "patterns": patterns,
    "cache tools": cache_tools,
    "operators": operators,
    "nobodies": nobodies,
    "profile tools": profile_tools,
    "functions": functions,
    "conversations": conversations,
}
ALL: Final = {
    "identities": 27_000,
    "metadata": 16_000,
    "key parts": 16_000,
    "patterns": 24_000,
    "cache tools": 7_000,
    "operators": 1_500,
    "nobodies": 4_500,
    "profile tools": 5_000,
    "functions": 4_000,
    "conversations": 500,
}
"""How many of each: 105,500, of which 22,500 go through Redis, the store and the tools."""


async def isolation(directory: Path, counts: Mapping[str, int], seed: int, ends: float = math.inf) -> Verdict:
    """Carry them out. ``ends``: reading of ``time.monotonic`` at which no more are begun."""
    with schemas_made_once():
        async with stage(directory, ends) as it:
            for kind, count in counts.items():
                began = time.perf_counter()
                it.verdict.cases[kind] = await KINDS[kind](it, Random(f"{seed} {kind}"), count)
                it.verdict.seconds[kind] = time.perf_counter() - began
    return it.verdict


def in_a_process(counts: Mapping[str, int], seed: int, ends: float) -> Verdict:
    """:func:`isolation`, for a process of its own."""
    silence()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)  # importing the agent reads the .env of the working directory
        try:
            return asyncio.run(isolation(Path(directory), counts, seed, ends))
        finally:
            os.chdir("/")
