"""A small cancellation load on each target; ``make chaos`` runs 100,000 cancellations."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.load.load_targets import TARGETS

pytestmark = [pytest.mark.faults, pytest.mark.serial]
CALLS = {"multiplexer": 5_000, "pool": 1_000, "get_or_load": 10_000, "SQLite": 1_500, "Supabase": 600}


@pytest.mark.parametrize("name", CALLS)
async def test_cancelled_calls_do_not_affect_others(name: str, tmp_path: Path) -> None:
    result = await TARGETS[name](tmp_path, CALLS[name], seed=2)
    assert result.calls == CALLS[name]
    assert result.cancelled > CALLS[name] / 2
    assert result.violations == [], result
