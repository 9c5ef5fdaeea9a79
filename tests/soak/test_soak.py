"""A short soak, with more people at once than usual; ``make soak`` has ten minutes of it, and judges memory too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.report import broken, details, table
from tests.soak.soak import Course, soak

TROUBLES = ("connection reset", "killed, restarted empty", "store refuses", "store locked")


async def test_nothing_is_lost_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # importing the agent reads the .env of the working directory
    course = Course(seconds=5.0, rate=400, people=20, troubles=TROUBLES, pause=(0.1, 0.3), lasts=(0.4, 0.9), haste=0.4)
    outcome = await soak(course, tmp_path)
    assert broken(outcome) == [], f"{table(outcome)}\n{details(outcome)}"
    assert outcome.tally.sessions > 15
    assert len(outcome.troubles) >= 3
