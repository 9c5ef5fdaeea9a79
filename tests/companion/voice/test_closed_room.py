"""LiveKit's log of a room that has closed holds no traceback."""

from __future__ import annotations

import logging
import sys

import pytest

from companion.voice.closed_room import ClosedRoomFilter

pytestmark = pytest.mark.unit


def logged(message: str, problem: Exception) -> tuple[bool, str]:
    """Whether a record is shown, and how."""
    try:
        raise problem
    except Exception:
        record = logging.LogRecord("livekit.agents", logging.WARNING, "", 0, message, None, sys.exc_info())
    return ClosedRoomFilter().filter(record), logging.Formatter().format(record)


def test_an_event_that_cannot_be_sent_is_one_line_or_none() -> None:
    shown, _ = logged("failed to send session event", RuntimeError("room session transport is closed"))
    assert not shown
    closing = RuntimeError("failed to send binary stream message: unable to send packet")
    shown, line = logged("failed to send session event", closing)
    assert shown
    assert line == f"failed to send session event: {closing}"


def test_what_else_fails_keeps_its_traceback() -> None:
    shown, text = logged("something else failed", RuntimeError("room session transport is closed"))
    assert shown
    assert "Traceback" in text
