"""The log lines, errors and traces of LiveKit that the companion depends on. See docs/upgrading.md."""

from __future__ import annotations

import inspect
import logging
import re

import pytest
from livekit.agents import AgentSession, APIConnectOptions, APIStatusError, llm
from livekit.agents.log import logger
from livekit.agents.telemetry import set_tracer_provider, tracer
from livekit.agents.telemetry.pii import is_pii_attribute
from livekit.agents.voice.agent_session import RecordingOptions
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.contract.livekit.livekit_stand_in import PlayedLLM

pytestmark = pytest.mark.integration
REFUSAL = "'I said this' is not allowed"


def test_the_loggers_have_these_names() -> None:
    """``companion.voice.log_redaction``: filters these loggers; a filter does not see a child logger's records.

    Records of another logger could contain what was said.
    """
    from livekit.plugins.openai.log import logger as openais  # only here: a plugin may not fit the framework

    assert logger.name == "livekit.agents"
    assert openais.name == "livekit.plugins.openai"


def test_no_module_of_a_session_logs_under_a_name_of_its_own() -> None:
    """``companion.voice.log_redaction``: the filter does not see child loggers.

    Exempt: avatars, which the companion does not have, and the command line, which runs before a conversation."""
    ours = {"livekit.agents", "livekit.plugins.openai"}
    exempt = ("livekit.agents.voice.avatar", "livekit.agents.cli")
    children = [
        name
        for name, one in logging.root.manager.loggerDict.items()
        if isinstance(one, logging.Logger) and name.startswith(("livekit.agents", "livekit.plugins"))
    ]
    assert [name for name in children if name not in ours and not name.startswith(exempt)] == []


@pytest.mark.parametrize("name", ["lk.pii.user_input", "lk.pii.room_name", "gen_ai.input.messages"])
def test_personal_fields_are_known_by_their_names(name: str) -> None:
    """``companion.voice.log_redaction`` (``is_pii_attribute``): decides which fields are removed from a record."""
    assert is_pii_attribute(name)
    assert not is_pii_attribute("job_id")


CONTENT = ("lk.pii.user_input", "gen_ai.system_instructions", "gen_ai.tool.call.arguments")


@pytest.mark.parametrize(("variable", "content"), [(None, True), ("0", False), ("1", True)])
def test_a_variable_keeps_content_from_other_trace_exporters(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, content: bool
) -> None:
    """``agent``: docs/security.md says how to keep conversations out of exported traces."""
    monkeypatch.delenv("LIVEKIT_TELEMETRY_ALLOW_PII", raising=False)
    if variable is not None:
        monkeypatch.setenv("LIVEKIT_TELEMETRY_ALLOW_PII", variable)
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    set_tracer_provider(provider)
    try:
        with tracer.start_as_current_span("turn") as span:
            span.set_attributes({**dict.fromkeys(CONTENT, "said"), "lk.other": "x"})
    finally:
        set_tracer_provider(otel.NoOpTracerProvider())
    (ended,) = exporter.get_finished_spans()
    assert ended.attributes is not None
    assert set(CONTENT) & ended.attributes.keys() == (set(CONTENT) if content else set())
    assert ended.attributes["lk.other"] == "x"


def test_a_session_says_what_is_recorded() -> None:
    """``agent``: docs/security.md names ``record=``. Where it is not given, the project's setting decides."""
    assert "record" in inspect.signature(AgentSession.start).parameters
    parts = {"audio", "traces", "logs", "transcript", "redaction"}
    assert parts <= RecordingOptions.__annotations__.keys()
    assert "job_ctx.job.enable_recording" in inspect.getsource(AgentSession.start)


def test_an_api_error_writes_its_message_and_status_so() -> None:
    """``companion.voice.provider_errors``: two expressions find a provider's message and the status in a line.

    In another format, the message, which may quote the conversation, would be logged.
    """
    problem = APIStatusError(REFUSAL, status_code=429, body={"message": REFUSAL})
    assert str(problem).startswith(f"message={REFUSAL!r}, status_code=429, retryable=")
    assert repr(problem).startswith(f"APIStatusError({REFUSAL!r}, ")


async def test_a_line_about_a_retry_ends_with_the_pause(caplog: pytest.LogCaptureFixture) -> None:
    """``companion.voice.provider_errors``: a provider's message ends before ``, retrying in 0.1s``."""
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
    """``companion.voice.tracing``: uses LiveKit's tracer, so its spans have the framework's exporter."""
    root = tracer.start_span("contract")
    below = tracer.start_span("contract.below", context=otel.set_span_in_context(root))
    root.add_event("a moment")
    for span in (below, root):
        assert isinstance(span, otel.Span)
        span.end()
