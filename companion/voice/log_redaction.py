"""What people say stays out of the log, the framework's included.

LiveKit attaches transcripts and tool arguments to some records, as fields whose names say that they are personal
(``lk.pii.*``), and the participant's identity, which may be an address. They are removed before any handler sees them.
So is what a provider of models answers when it refuses a request: it may quote what was said, or a part of a key.
"""

from __future__ import annotations

import logging
import re
import traceback
from typing import Final

from livekit.agents.telemetry.pii import is_pii_attribute

_LOGGERS: Final = ("livekit.agents", "livekit.plugins.openai", "asyncio")
# As an APIError writes itself, in a message, in a traceback, and within the repr of a task.
_ANSWER: Final = re.compile(r"""(?:\bmessage=|\bAPI\w*Error\()["'].*?(?=, retrying in [\d.]+s$|$)""", re.MULTILINE)
_STATUS: Final = re.compile(r"\bstatus_code=(\d{3}), retryable=")


class WithoutPersonalFields(logging.Filter):
    """Takes personal fields, and what providers answer, off every record. Lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See :class:`logging.Filter`."""
        for name in [name for name in record.__dict__ if name == "participant" or is_pii_attribute(name)]:
            delattr(record, name)
        text = record.getMessage()
        if (told := _without_answers(text)) != text:
            record.msg, record.args = told, None
        if record.exc_info and record.exc_info[1] is not None:
            text = "".join(traceback.format_exception(record.exc_info[1])).rstrip()
            if (told := _without_answers(text)) != text:
                record.exc_info, record.exc_text = None, told
        return True


def keep_logs_private() -> None:
    """Put the filter on the framework's loggers, once."""
    for logger in map(logging.getLogger, _LOGGERS):
        if not any(isinstance(one, WithoutPersonalFields) for one in logger.filters):
            logger.addFilter(WithoutPersonalFields())


def _without_answers(text: str) -> str:
    """``text`` with the status in place of a provider's answer, to the end of the line."""
    return _ANSWER.sub(lambda answer: f"status {' '.join(_STATUS.findall(answer.group())[:1]) or 'unknown'}", text)
