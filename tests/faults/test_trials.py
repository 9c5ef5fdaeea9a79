"""Each fault in one of its two places; ``make chaos`` has all of them, and each lasts longer there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.faults import FAULTS, Fault
from tests.faults.trial import LASTS, PLACES, Place, trial

pytestmark = [pytest.mark.faults, pytest.mark.serial]
FOUND_OUT_LATE = ("server stopped (SIGSTOP)", "slow link, 50 ms", "black hole")
"""Silence and slowness are no outage until they have lasted half a second."""

ONE_COMMAND = ("NOPERM GET", "NOPERM SET", "NOPERM EVALSHA", "NOPERM UNLINK", "NOPERM CLIENT")
"""What goes on without each of them is tested in tests/cache/test_acl.py."""


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        pytest.param(fault, PLACES[number % 2], id=fault.name)
        for number, fault in enumerate(FAULTS)
        if fault.name not in ONE_COMMAND
    ],
)
async def test_nothing_stops_the_voice(
    fault: Fault, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # importing the agent reads the .env of the working directory
    lasts = LASTS if fault.name in FOUND_OUT_LATE else (0.2, 0.4)
    outcome = await trial(fault, place, tmp_path, lasts=lasts)
    assert outcome.broken == [], outcome
