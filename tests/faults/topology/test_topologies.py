"""One election in a cluster and one by Sentinels; ``make chaos`` runs every fault of several servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.topology.places import cluster_place, sentinel_place
from tests.faults.topology.topology_faults import TOPOLOGY_FAULTS
from tests.faults.topology.topology_scenario import run_topology_scenario

pytestmark = [pytest.mark.faults, pytest.mark.timed]
PLACES = {"cluster: node of the URL killed": cluster_place, "Sentinel: failover, deletes lost": sentinel_place}


@pytest.mark.parametrize("name", PLACES)
async def test_the_traffic_goes_on(name: str, tmp_path: Path) -> None:
    fault = next(fault for fault in TOPOLOGY_FAULTS if str(fault) == name)
    with PLACES[name](tmp_path) as place:
        result = await run_topology_scenario(fault, place)
    assert result.violations == [], result
