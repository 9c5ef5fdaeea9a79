"""Each fault in one of its two phases; ``make chaos`` runs both phases, with longer faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness.faults import FAULTS, Fault
from tests.faults.harness.scenario import DURATION, PHASES, Phase, run_scenario

pytestmark = [pytest.mark.faults, pytest.mark.timed]
DETECTED_LATE = ("server stopped (SIGSTOP)", "slow link, 50 ms", "black hole")
"""Faults by silence or latency count as an outage only after half a second."""

ONE_COMMAND = ("NOPERM GET", "NOPERM SET", "NOPERM EVALSHA", "NOPERM UNLINK", "NOPERM CLIENT")
"""The effect of each missing right is tested in tests/cache/test_acl.py."""

BUSY = ("reply of 100 MB",)
"""Faults that take a core for themselves."""


@pytest.mark.parametrize(
    ("fault", "phase"),
    [
        pytest.param(fault, PHASES[number % 2], id=fault.name, marks=[pytest.mark.serial] if fault.name in BUSY else [])
        for number, fault in enumerate(FAULTS)
        if fault.name not in ONE_COMMAND
    ],
)
async def test_the_dialogue_continues(
    fault: Fault, phase: Phase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # importing the agent reads the .env of the working directory
    duration = DURATION if fault.name in DETECTED_LATE else (0.2, 0.4)
    result = await run_scenario(fault, phase, tmp_path, duration=duration)
    assert result.violations == [], result
