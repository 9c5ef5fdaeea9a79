"""Cancellations under load: a small storm of each kind; ``make chaos`` has those with 100,000."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.storms import STORMS

pytestmark = pytest.mark.faults
CALLS = {"lane": 5_000, "pool": 1_000, "get_or_load": 10_000, "SQLite": 1_500, "Supabase": 600}


@pytest.mark.parametrize("name", CALLS)
async def test_whoever_is_cut_off_costs_nobody_else_anything(name: str, tmp_path: Path) -> None:
    storm = await STORMS[name](tmp_path, CALLS[name], seed=2)
    assert storm.calls == CALLS[name]
    assert storm.cancelled > CALLS[name] / 2
    assert storm.broken == [], storm
