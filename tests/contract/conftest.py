"""The libraries alone: without what the companion, imported by another test of the same process, has added to them."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _framework_logs_unfiltered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing ``agent`` adds the redaction filter to the framework's loggers for the rest of the process."""
    for name in ("livekit.agents", "livekit.plugins.openai"):
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
