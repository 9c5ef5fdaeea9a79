"""Fixture: a conversation that waits for what is known of its caller, on however busy a machine."""

from __future__ import annotations

import pytest


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second that an answer waits for what is known becomes ten: for tests that are not about that second."""
    for module in ("briefing", "knowledge", "session_memory"):
        monkeypatch.setattr(f"companion.conversation.{module}.DEADLINE", 10.0)
