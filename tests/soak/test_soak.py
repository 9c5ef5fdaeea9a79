"""A short soak test with many concurrent sessions; ``make soak`` runs ten minutes and judges memory too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.soak.measures.memory_use import Memory, MemoryUse
from tests.soak.report import details, table, violations
from tests.soak.soak import SoakConfig, SoakResult, soak

pytestmark = [pytest.mark.soak, pytest.mark.serial]
FAULT_NAMES = ("connection reset", "killed, restarted empty", "store refuses", "store locked")


async def test_nothing_is_lost_and_nothing_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # importing the agent reads the .env of the working directory
    config = SoakConfig(
        seconds=5.0,
        rate=400,
        personas=20,
        initial_burst=10,
        faults=FAULT_NAMES,
        pause=(0.1, 0.3),
        duration=(0.4, 0.9),
        pace=0.4,
        killed=0,  # they have a test of their own
    )
    result = await soak(config, tmp_path)
    assert violations(result) == [], f"{table(result)}\n{details(result)}"
    assert result.counters.sessions > 15
    assert len(result.faults) >= 3
    assert result.erasures > 3


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (lambda at: MemoryUse(180e6, 1e6), []),
        (lambda at: MemoryUse(160e6 + 26e6 * (at >= 90), 1e6), []),  # one step: a higher peak of concurrent sessions
        (lambda at: MemoryUse(180e6 + 50e3 * at, 1e6), ["memory grew by 11.2%, Python's blocks by 0.0%"]),
        (lambda at: MemoryUse(180e6, 1e6 + 100 * at), ["memory grew by 0.0%, Python's blocks by 4.1%"]),
        (lambda at: MemoryUse(180e6 + 20e3 * at, 1e6 + 50 * at), []),
    ],
    ids=["flat", "a step while warming up", "a leak", "a leak into gaps", "little"],
)
def test_memory_is_judged(use: Callable[[int], MemoryUse], expected: list[str]) -> None:
    memory = Memory(600, warm_at=90, samples=[(at, use(at)) for at in range(30, 601, 30)])
    assert violations(SoakResult(SoakConfig(), memory=memory)) == expected


def test_a_short_run_does_not_judge_memory() -> None:
    memory = Memory(60, warm_at=10, samples=[(at, MemoryUse(at, at)) for at in range(30, 61, 30)])
    assert memory.growth is None
