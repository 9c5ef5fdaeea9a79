"""What the companion takes for granted of LiveKit's log lines, errors and traces. See docs/upgrading.md."""

from __future__ import annotations

import logging
import re

import livekit.plugins.openai.log
import pytest
from livekit.agents import APIConnectOptions, APIStatusError, llm
from livekit.agents.log import logger
from livekit.agents.telemetry import tracer
from livekit.agents.telemetry.pii import is_pii_attribute
from opentelemetry import trace as otel

from tests.contract.livekit_stand_in import PlayedLLM

pytestmark = pytest.mark.integration
REFUSAL = "'I said this' is not allowed"


def test_the_loggers_have_these_names() -> None:
    """``companion.voice.log_redaction``: its filter sits on these loggers, and sees no child's records.

    A record of another logger would go to the log with what people said.
    """
    assert logger.name == "livekit.agents"
    assert livekit.plugins.openai.log.logger.name == "livekit.plugins.openai"


def test_no_module_of_a_session_logs_under_a_name_of_its_own() -> None:
    """``companion.voice.log_redaction``: ``livekit.agents.something`` would pass by the filter."""
    ours = {"livekit.agents", "livekit.plugins.openai"}
    avatars = "livekit.agents.voice.avatar"  # the companion has no face
    children = [
        name
        for name, one in logging.root.manager.loggerDict.items()
        if isinstance(one, logging.Logger) and name.startswith(("livekit.agents", "livekit.plugins"))
    ]
    assert [name for name in children if name not in ours and not name.startswith(avatars)] == []


@pytest.mark.parametrize("name", ["lk.pii.user_input", "lk.pii.room_name", "gen_ai.input.messages"])
def test_personal_fields_are_known_by_their_names(name: str) -> None:
    """``companion.voice.log_redaction`` (``is_pii_attribute``): decides which fields are taken off a record."""
    assert is_pii_attribute(name)
    assert not is_pii_attribute("job_id")


def test_an_api_error_writes_its_message_and_status_so() -> None:
    """``companion.voice.log_redaction``: two expressions find a provider's answer in a line, and the status in it.

    Were it written otherwise, what somebody said would be in the log, as a provider quotes it.
    """
    problem = APIStatusError(REFUSAL, status_code=429, body={"message": REFUSAL})
    assert str(problem).startswith(f"message={REFUSAL!r}, status_code=429, retryable=")
    assert repr(problem).startswith(f"APIStatusError({REFUSAL!r}, ")


async def test_a_line_about_a_retry_ends_with_the_pause(caplog: pytest.LogCaptureFixture) -> None:
    """``companion.voice.log_redaction``: a provider's answer ends where ``, retrying in 0.1s`` begins."""
    answers = iter([APIStatusError(REFUSAL, status_code=429), "hello"])
    model = PlayedLLM(lambda _: next(answers))
    question = llm.ChatContext.empty()
    question.add_message(role="user", content="hello")
    with caplog.at_level(logging.DEBUG, "livekit.agents"):
        options = APIConnectOptions(max_retry=1, retry_interval=0.01)
        async with model.chat(chat_ctx=question, conn_options=options) as stream:
            assert (await stream.collect()).text.strip() == "hello"
    (record,) = (record for record in caplog.records if "retrying in" in record.getMessage())
    assert record.name == "livekit.agents"
    assert re.search(r"message=.*status_code=429, retryable=.*, retrying in [\d.]+s$", record.getMessage())


def test_spans_can_be_begun_under_a_context() -> None:
    """``companion.voice.tracing``: LiveKit's own tracer, so that our spans go where the framework's go."""
    root = tracer.start_span("contract")
    below = tracer.start_span("contract.below", context=otel.set_span_in_context(root))
    root.add_event("a moment")
    for span in (below, root):
        assert isinstance(span, otel.Span)
        span.end()
