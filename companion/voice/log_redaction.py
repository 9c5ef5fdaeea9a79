"""Redacts personal data in the framework's log records.

LiveKit attaches transcripts and tool arguments to some records, in fields whose names mark them as personal
(``lk.pii.*``), and the participant's identity, which may be an e-mail address. The filter removes these fields before a
handler formats the record. It also removes the response body of a model provider's error, which may quote what the
caller said or a part of an API key.
"""

from __future__ import annotations

import logging
import re
import traceback
from typing import Final

from livekit.agents.telemetry.pii import is_pii_attribute

_LOGGERS: Final = ("livekit.agents", "livekit.plugins.openai", "asyncio")
# An APIError's own text: in a message, in a traceback, and in the repr of a task.
_RESPONSE: Final = re.compile(r"""(?:\bmessage=|\bAPI\w*Error\()["'].*?(?=, retrying in [\d.]+s$|$)""", re.MULTILINE)
_STATUS: Final = re.compile(r"\bstatus_code=(\d{3}), retryable=")


class PersonalDataFilter(logging.Filter):
    """Removes personal fields and providers' responses from every record. Lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See :class:`logging.Filter`."""
        for name in [name for name in record.__dict__ if name == "participant" or is_pii_attribute(name)]:
            delattr(record, name)
        text = record.getMessage()
        if (redacted := _without_responses(text)) != text:
            record.msg, record.args = redacted, None
        if record.exc_info and record.exc_info[1] is not None:
            text = "".join(traceback.format_exception(record.exc_info[1])).rstrip()
            if (redacted := _without_responses(text)) != text:
                record.exc_info, record.exc_text = None, redacted
        return True


def redact_logs() -> None:
    """Add the filter to the framework's loggers, once."""
    for logger in map(logging.getLogger, _LOGGERS):
        if not any(isinstance(each, PersonalDataFilter) for each in logger.filters):
            logger.addFilter(PersonalDataFilter())


def _without_responses(text: str) -> str:
    """``text`` with each provider's response, up to the end of its line, replaced by its HTTP status."""
    return _RESPONSE.sub(lambda match: f"status {' '.join(_STATUS.findall(match.group())[:1]) or 'unknown'}", text)
