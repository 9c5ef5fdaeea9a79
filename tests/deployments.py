"""What the shared server of a test may be, beside one server: see the marker ``every_deployment``."""

from __future__ import annotations

from typing import Final

DEPLOYMENTS: Final = {"Cluster": "_shared_cluster", "Sentinel": "shared_trio"}
"""The names, and the fixtures that start them."""
