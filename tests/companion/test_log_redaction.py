"""User data is redacted from the framework's log."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import suppress

import pytest
from livekit.agents import APIStatusError
from livekit.agents.log import logger
from livekit.agents.utils import log_exceptions
from livekit.plugins import openai

from companion.voice.log_redaction import redact_logs
from tests.real import openai_server
from tests.real.openai_server import OpenAIServer, Reply
from tests.tools.conversation import conversation

pytestmark = pytest.mark.unit
REFUSAL = "'I said this' is not allowed: \"status_code=999\", and sk-secret*** is no key"


def test_personal_fields_are_removed(caplog: pytest.LogCaptureFixture) -> None:
    redact_logs()
    redact_logs()
    with caplog.at_level(logging.DEBUG, "livekit.agents"):
        logger.warning("skipping user input", extra={"lk.pii.user_input": "my secret", "job_id": "j1"})
        logger.info("closing agent session", extra={"participant": "my secret"})
    record, other = caplog.records
    assert "my secret" not in f"{record.__dict__} {other.__dict__}"
    assert record.__dict__["job_id"] == "j1"
    assert sum(type(one).__name__ == "PersonalDataFilter" for one in logger.filters) == 1


async def test_what_a_provider_answers_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    redact_logs()
    right = openai_server.error_response
    monkeypatch.setattr(openai_server, "error_response", lambda status, _: right(status, REFUSAL))
    async with OpenAIServer(lambda _: Reply.error(400)) as server:
        model = openai.LLM(model="any", api_key="test", base_url=server.base_url)
        async with conversation(model=model) as talk:
            with caplog.at_level(logging.INFO):
                for _ in range(4):  # then the session ends
                    with suppress(APIStatusError):
                        await talk.session.run(user_input="I said this")
        await model.aclose()
    assert "AgentSession is closing due to unrecoverable error: status 400" in caplog.text
    assert "I said this" not in caplog.text
    assert "sk-secret" not in caplog.text


def test_nor_when_it_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    redact_logs()
    problem = APIStatusError(REFUSAL, status_code=429, body={"message": REFUSAL})
    logger.warning(f"failed to generate LLM completion: {problem}, retrying in 2.0s")
    assert [record.getMessage() for record in caplog.records] == [
        "failed to generate LLM completion: status 429, retrying in 2.0s"
    ]


async def test_nor_with_an_exception(caplog: pytest.LogCaptureFixture) -> None:
    redact_logs()

    @log_exceptions("while answering", logger=logger)
    async def fail() -> None:
        try:
            raise APIStatusError(REFUSAL, status_code=400, body={"message": REFUSAL})
        except APIStatusError as problem:
            raise RuntimeError("it failed") from problem

    task = asyncio.create_task(fail())
    await asyncio.wait({task})
    del task
    gc.collect()
    assert "Task exception was never retrieved" in caplog.text
    assert "RuntimeError: it failed" in caplog.text
    assert "status 400" in caplog.text
    assert "I said this" not in caplog.text


def test_other_exceptions_are_logged_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    redact_logs()
    try:
        raise OSError("no route to host")
    except OSError:
        logger.exception("failed to connect to %s", "livekit")
    (record,) = caplog.records
    assert record.exc_info
    assert "failed to connect to livekit" in caplog.text
    assert "no route to host" in caplog.text
