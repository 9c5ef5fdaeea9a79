"""User data is redacted from the framework's log."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import openai as openai_client
import pytest
from livekit.agents import APIConnectionError, APIStatusError, APITimeoutError
from livekit.agents.log import logger
from livekit.agents.utils import log_exceptions
from livekit.plugins import openai
from pydantic import TypeAdapter, ValidationError

from companion.voice.log_redaction import PersonalDataFilter, redact_logs
from tests.real.models import openai_server
from tests.real.models.openai_server import OpenAIServer, Reply
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


NUMBERS = ("+15551234567", "+1 (555) 123-4567", "sip_15551234567", "sip_+15551234567", "sip:15551234567@203.0.113.7")


@pytest.mark.parametrize(
    "number",
    [
        *NUMBERS,
        "tel:+1-555-123-4567",
        "Phone +15551234567",
        "user:sip_+15551234567:profile",
        "https://project.supabase.co/x?user_id=sip_%2B15551234567",
        "user:=sip_=28555=29=20123-4567:profile",
        "user:=sip_=2b1=20555=20123=204567:profile",
        "sip_(555) 123-4567",
        "+1\u00a0555\u2011123\u00a04567",
        "\uff0b15551234567",
        "{'sip.phoneNumber': '15551234567'}",
        "trunkPhoneNumber=5551234567",
    ],
)
def test_telephone_numbers_are_removed(caplog: pytest.LogCaptureFixture, number: str) -> None:
    redact_logs()
    try:
        raise RuntimeError(f"participant '{number}' disconnected")
    except RuntimeError:
        logger.exception("failed for %s", number, extra={"caller": number, "room": f"call-_{number}_x"})
    for name in ("livekit", "companion", "cache"):
        logging.getLogger(name).warning("stale value under %s, 2.5 s after the change", number)
    everything = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert len(caplog.records) == 4
    assert "[number]" in everything
    assert not re.search(r"555\D{0,2}123", everything)


def test_a_rooms_name_holds_no_number_and_other_lines_keep_theirs(caplog: pytest.LogCaptureFixture) -> None:
    redact_logs()
    logger.warning("received job request", extra={"room": "call-_15551234567_x1", "room_name": "_0301234567_x"})
    logger.warning("at 2026-11-29 22:06:12.123456+00:00, 1048576 bytes, AJ_4711471147, pid 1234567, -1.25e+10")
    record, other = caplog.records
    assert (record.__dict__["room"], record.__dict__["room_name"]) == ("call-_[number]_x1", "_[number]_x")
    assert (
        other.getMessage()
        == "at 2026-11-29 22:06:12.123456+00:00, 1048576 bytes, AJ_4711471147, pid 1234567, -1.25e+10"
    )


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


def test_a_log_call_whose_arguments_do_not_fit_raises_nothing(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    redact_logs()
    logger.warning("tried %d times in %s", "my secret")
    logger.warning("tried %d times", "my secret")
    logger.warning("no place for it", "my secret")
    logger.warning("%(name)s", {"other": "my secret"})
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "tried %d times in %s (its arguments do not fit: TypeError)",
        "tried %d times (its arguments do not fit: TypeError)",
        "no place for it (its arguments do not fit: TypeError)",
        "%(name)s (its arguments do not fit: KeyError)",
    ]
    assert "my secret" not in caplog.text + capsys.readouterr().err


def test_half_a_character_costs_no_line_of_a_log_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    redact_logs()
    handler = logging.FileHandler(tmp_path / "log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s %(field)s", defaults={"field": ""}))
    logger.addHandler(handler)
    try:
        logger.warning("calling %s", "tool\ud83d", extra={"field": "x\ud83d"})
        try:
            raise ValueError("it was \udfff")
        except ValueError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
        handler.close()
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert text.startswith("calling tool\ufffd x\ufffd\nfailed")
    assert text.endswith("ValueError: it was \ufffd\n")
    assert "Logging error" not in capsys.readouterr().err


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("my secret")

    __repr__ = __str__


@pytest.mark.parametrize("given", [(None, None, None), (Unprintable, None, None), (), "junk", ValueError("x"), 5])
def test_no_exc_info_makes_it_raise(given: object) -> None:
    record = logging.makeLogRecord({"msg": "it failed", "exc_info": given})
    assert PersonalDataFilter().filter(record)
    assert record.getMessage() == "it failed"


def test_a_field_that_has_no_name_does_not_make_it_raise() -> None:
    record = logging.makeLogRecord({"msg": "fine", 5: "ada@example.com"})
    assert PersonalDataFilter().filter(record) is True
    assert "withheld" in record.getMessage()
    assert 5 not in record.__dict__


def test_what_cannot_be_printed_is_named(caplog: pytest.LogCaptureFixture) -> None:
    redact_logs()
    try:
        try:
            raise Unprintable
        except Unprintable as problem:
            raise OSError("no route to host") from problem
    except OSError:
        logger.exception("failed")
    logger.error(Unprintable())
    logger.error("failed", extra={"error": Unprintable()})
    logger.error("failed %s", Unprintable())
    assert "Unprintable" in caplog.records[0].exc_text
    assert "OSError: no route to host" in caplog.records[0].exc_text
    assert "could not be redacted" in caplog.records[1].getMessage()
    assert "could not be redacted" in caplog.records[2].getMessage()
    assert "error" not in caplog.records[2].__dict__
    assert caplog.records[3].getMessage() == "failed %s (its arguments do not fit: RuntimeError)"
    assert "my secret" not in caplog.text


def raised(problem: Exception, cause: BaseException | None = None) -> Exception:
    try:
        raise problem from cause
    except type(problem) as error:
        return error


def provider_error(text: str) -> Exception:
    """As the client raises it for an error in the middle of a stream."""
    return openai_client.APIError(text, cast(Any, None), body={"message": text})


BODY = {"message": REFUSAL, "code": "model_not_found", "type": "invalid_request_error"}


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (APIStatusError(REFUSAL, status_code=404, body=BODY), "APIStatusError: status 404 (model_not_found"),
        (APIStatusError("model 'x' not found", status_code=404), "APIStatusError: status 404 (not found)"),
        (
            APIStatusError("Incorrect API key provided: sk-secret", status_code=401),
            "APIStatusError: status 401 (incorrect api key)",
        ),
        (APIConnectionError(), "APIConnectionError: no connection"),
        (
            raised(APIConnectionError(), OSError("no route to host")),
            "APIConnectionError: caused by OSError: no route to host",
        ),
        (
            raised(APIConnectionError(), raised(RuntimeError("x"), provider_error(REFUSAL + " insufficient_quota"))),
            "APIConnectionError: caused by APIError: status unknown (insufficient_quota)",
        ),
        (APITimeoutError(), "APITimeoutError: timed out"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_the_reason_of_a_provider_stays(caplog: pytest.LogCaptureFixture, problem: Exception, said: str) -> None:
    redact_logs()
    logger.error("it failed", exc_info=problem)
    assert said in caplog.text.splitlines()[-1]
    logger.error("it failed", exc_info=raised(ExceptionGroup("several", [problem])))
    assert said in caplog.text
    logger.error(f"AgentSession is closing due to unrecoverable error: {problem}")
    logger.error("session closed", extra={"error": problem})
    everything = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert "I said this" not in everything
    assert "sk-secret" not in everything


def test_what_a_model_wrote_into_a_tools_arguments_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    redact_logs()
    arguments = {"age": REFUSAL}
    try:
        TypeAdapter(dict[str, int]).validate_python(arguments)
    except ValidationError as problem:
        logger.exception("invalid arguments")
        logger.error(f"invalid arguments: {problem}")
        logger.error("invalid arguments", extra={"error": problem})
    assert "ValidationError: int_parsing" in caplog.text
    everything = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert "I said this" not in everything


def test_no_text_adds_to_the_reasons(caplog: pytest.LogCaptureFixture) -> None:
    redact_logs()
    words = "model_not_found_ada, unsupported_ada, billing_ada, not foundada, code: 'ada'"
    logger.error("it failed", exc_info=APIStatusError(words, status_code=400, body={"code": "ada", "type": "ada"}))
    assert "status 400" in caplog.text
    assert "ada" not in caplog.text
