"""The libraries alone: without what the companion, imported by another test of the same process, has added to them."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _logs_unfiltered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing ``agent`` filters the framework's loggers for the rest of the process, and a store httpx's."""
    for name in ("livekit.agents", "livekit.plugins.openai", "httpx"):
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
