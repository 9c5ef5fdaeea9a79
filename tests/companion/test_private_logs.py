"""What people say stays out of the framework's log."""

from __future__ import annotations

import logging

import pytest
from livekit.agents.log import logger

from companion.private_logs import keep_logs_private


def test_personal_fields_are_removed(caplog: pytest.LogCaptureFixture) -> None:
    keep_logs_private()
    keep_logs_private()
    with caplog.at_level(logging.DEBUG, "livekit.agents"):
        logger.warning("skipping user input", extra={"lk.pii.user_input": "my secret", "job_id": "j1"})
    (record,) = caplog.records
    assert "my secret" not in str(record.__dict__)
    assert record.__dict__["job_id"] == "j1"
    assert sum(type(one).__name__ == "WithoutPersonalFields" for one in logger.filters) == 1
