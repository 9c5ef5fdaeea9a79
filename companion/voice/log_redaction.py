"""Redacts personal data in the framework's log records.

LiveKit attaches transcripts and tool arguments to some records, in fields whose names mark them as personal
(``lk.pii.*``), and the participant's identity, which may be an e-mail address. The filter removes these fields before a
handler formats the record. It also reduces a model provider's error to its class, its HTTP status and its reason: the
rest may quote what the caller said or a part of an API key. From asyncio's lines it removes the values of tasks and
callbacks, and the texts of exceptions.

A logger calls its filters outside of any error handling: what a filter raises reaches the code that logs. This one
raises nothing. A record that it cannot redact is withheld, with a line in its place that says so.
"""

from __future__ import annotations

import logging
import traceback
from typing import Final

from livekit.agents.telemetry.pii import is_pii_attribute

from ..text import storable
from .asyncio_lines import without_values
from .provider_errors import comes_from_provider, format_exception, without_responses

_LOGGERS: Final = ("livekit.agents", "livekit.plugins.openai", "asyncio")
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


def redact_logs() -> None:
    """Add the filter to the framework's loggers, once."""
    for logger in map(logging.getLogger, _LOGGERS):
        if not any(isinstance(each, PersonalDataFilter) for each in logger.filters):
            logger.addFilter(PersonalDataFilter())


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
        record.exc_info, record.exc_text = None, storable(format_exception(error, texts=not from_asyncio))
    elif record.exc_text:
        record.exc_text = _redacted(record.exc_text)


def _redact_field(record: logging.LogRecord, name: str) -> None:
    value = getattr(record, name)
    if isinstance(value, bool | int | float | None):
        return
    text = value if isinstance(value, str) else repr(value)
    if (redacted := _redacted(text)) != text:
        setattr(record, name, redacted)


def _redacted(text: str) -> str:
    """``text`` without providers' responses, and such that a file takes it: a handler loses what it cannot encode."""
    return storable(without_responses(text))


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
