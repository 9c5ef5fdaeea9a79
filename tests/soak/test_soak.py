"""A short soak, with more people at once than usual; ``make soak`` has ten minutes of it, and judges memory too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.soak.memory import Memory, Use
from tests.soak.report import broken, details, table
from tests.soak.soak import Course, Outcome, soak

pytestmark = [pytest.mark.soak, pytest.mark.serial]
TROUBLES = ("connection reset", "killed, restarted empty", "store refuses", "store locked")


async def test_nothing_is_lost_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # importing the agent reads the .env of the working directory
    course = Course(
        seconds=5.0, rate=400, people=20, rush=10, troubles=TROUBLES, pause=(0.1, 0.3), duration=(0.4, 0.9), haste=0.4
    )
    result = await soak(course, tmp_path)
    assert broken(result) == [], f"{table(result)}\n{details(result)}"
    assert result.tally.sessions > 15
    assert len(result.troubles) >= 3


@pytest.mark.parametrize(
    ("use", "promises"),
    [
        (lambda at: Use(180e6, 1e6), []),
        (lambda at: Use(160e6 + 26e6 * (at >= 90), 1e6), []),  # room for more people at once, once
        (lambda at: Use(180e6 + 50e3 * at, 1e6), ["memory has grown by 11.2%, what Python holds by 0.0%"]),
        (lambda at: Use(180e6, 1e6 + 100 * at), ["memory has grown by 0.0%, what Python holds by 4.1%"]),
        (lambda at: Use(180e6 + 20e3 * at, 1e6 + 50 * at), []),
    ],
    ids=["flat", "a step while warming up", "a leak", "a leak into gaps", "little"],
)
def test_memory_is_judged(use: Callable[[int], Use], promises: list[str]) -> None:
    memory = Memory(600, warm=90, samples=[(at, use(at)) for at in range(30, 601, 30)])
    assert broken(Outcome(Course(), memory=memory)) == promises


def test_a_short_run_says_nothing_of_memory() -> None:
    memory = Memory(60, warm=10, samples=[(at, Use(at, at)) for at in range(30, 61, 30)])
    assert memory.growth is None
