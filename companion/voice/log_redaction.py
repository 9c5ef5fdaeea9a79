"""Redacts personal data in the framework's log records.

LiveKit attaches transcripts and tool arguments to some records, in fields whose names mark them as personal
(``lk.pii.*``), and the participant's identity, which may be an e-mail address. The filter removes these fields before a
handler formats the record. It also reduces a model provider's error to its class, its HTTP status and its reason: the
rest may quote what the caller said or a part of an API key. From asyncio's lines it removes the values of tasks and
callbacks, and the texts of exceptions. Telephone numbers leave our own lines too: LiveKit names participants and rooms
by them, and a user id may hold one.

A logger calls its filters outside of any error handling: what a filter raises reaches the code that logs. This one
raises nothing. A record that it cannot redact is withheld, with a line in its place that says so.
"""

from __future__ import annotations

import logging
import re
import traceback
from typing import Final

from livekit.agents.telemetry.pii import is_pii_attribute

from ..text import storable
from .asyncio_lines import without_values
from .provider_errors import comes_from_provider, format_exception, without_responses

_LOGGERS: Final = ("livekit", "livekit.agents", "livekit.plugins.openai", "asyncio")
_OUR_LOGGERS: Final = ("companion", "cache")
# As SIP and E.164 write it, also in an address, in a key (as user_id_of encodes it) and in LiveKit's attributes. Of
# other digits only a room's name shows that they are a number.
_PLUS: Final = r"(?:[+\uff0b]|%2b|=2b)"
_BETWEEN: Final = r"(?:[().\-/ \xa0\u2010-\u2015]|[%=](?:20|28|29))"
_NUMBER: Final = re.compile(
    rf"(?<![a-z\d])(?:sips?[_:]|tel:)(?:{_PLUS}?\d[\d().-]*|{_BETWEEN}{{0,2}}\d(?:{_BETWEEN}{{0,3}}\d){{6,14}})"
    rf"|{_PLUS}\d(?:{_BETWEEN}{{0,3}}\d){{6,14}}"
    rf"|(?<=phonenumber)(?P<is>['\"]?[:=] ?['\"]?)\d(?:{_BETWEEN}{{0,3}}\d){{6,14}}",
    re.IGNORECASE,
)
_DIGITS: Final = re.compile(r"\+?\d{7,}")
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class PersonalDataFilter(logging.Filter):
    """Removes personal fields and providers' responses from every record. Lets every record pass, and never raises."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See :class:`logging.Filter`."""
        try:
            _redact(record)
        except Exception as defect:
            _withhold(record, defect)
        return True


class NumberFilter(logging.Filter):
    """Removes telephone numbers from every record. Lets every record pass, and never raises."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See :class:`logging.Filter`."""
        try:
            if (redacted := _without_numbers(text := record.getMessage())) != text:
                record.msg, record.args = redacted, None
            for name in record.__dict__.keys() - _STANDARD:
                if isinstance(value := getattr(record, name), str):
                    setattr(record, name, _field_without_numbers(name, value))
        except Exception as defect:
            _withhold(record, defect)
        return True


def redact_logs() -> None:
    """Add the filters to the framework's loggers and to ours, once."""
    for logger in map(logging.getLogger, _LOGGERS):
        _add(logger, PersonalDataFilter)
    for logger in map(logging.getLogger, _OUR_LOGGERS):
        _add(logger, NumberFilter)


def redact_handlers() -> None:
    """Add the filter for numbers to the handlers of this process, once.

    The worker gives the records of a job's process straight to its handlers, with the name of the room, in which
    LiveKit puts a caller's number.
    """
    for handler in logging.getLogger().handlers:
        _add(handler, NumberFilter)


def _add(filterer: logging.Filterer, kind: type[logging.Filter]) -> None:
    if not any(isinstance(each, kind) for each in filterer.filters):
        filterer.addFilter(kind())


def _redact(record: logging.LogRecord) -> None:
    for name in [name for name in record.__dict__ if name == "participant" or is_pii_attribute(name)]:
        delattr(record, name)
    for name in record.__dict__.keys() - _STANDARD:
        _redact_field(record, name)
    try:
        text = record.getMessage()
    except Exception as problem:  # left to the handler, it would print the arguments
        record.msg, record.args = f"{record.msg} (its arguments do not fit: {type(problem).__name__})", None
        text = record.msg
    from_asyncio = record.name == "asyncio"
    if (redacted := _redacted(without_values(text) if from_asyncio else text)) != text:
        record.msg, record.args = redacted, None
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) and len(record.exc_info) == 3 else None
    if isinstance(error, BaseException) and (from_asyncio or _tells_too_much(error)):
        record.exc_info, record.exc_text = (
            None,
            storable(_without_numbers(format_exception(error, texts=not from_asyncio))),
        )
    elif record.exc_text:
        record.exc_text = _redacted(record.exc_text)


def _redact_field(record: logging.LogRecord, name: str) -> None:
    value = getattr(record, name)
    if isinstance(value, bool | int | float | None):
        return
    text = value if isinstance(value, str) else repr(value)
    if (redacted := _field_without_numbers(name, _redacted(text))) != text:
        setattr(record, name, redacted)


def _redacted(text: str) -> str:
    """``text`` without providers' responses, and such that a file takes it: a handler loses what it cannot encode."""
    return storable(_without_numbers(without_responses(text)))


def _field_without_numbers(name: str, text: str) -> str:
    return _DIGITS.sub("[number]", text) if "room" in name and name != "room_id" else _without_numbers(text)


def _without_numbers(text: str) -> str:
    return _NUMBER.sub(lambda found: f"{found['is'] or ''}[number]", text)


def _tells_too_much(error: BaseException) -> bool:
    """Whether Python's own formatting of the exception fails, or contains a provider's response."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:
        return True
    return comes_from_provider(error) or _redacted(text) != text


def _withhold(record: logging.LogRecord, defect: Exception) -> None:
    """Leave nothing in the record but where it came from."""
    for name in record.__dict__.keys() - _STANDARD:
        del record.__dict__[name]  # whatever it is: it need not be a name
    record.msg = f"a log record could not be redacted ({type(defect).__name__}), and is withheld"
    record.args, record.exc_info, record.exc_text, record.stack_info = None, None, None, None
