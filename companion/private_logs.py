"""What people say stays out of the log, the framework's included.

LiveKit attaches transcripts and tool arguments to some records, as fields whose names say that they are personal
(``lk.pii.*``). They are removed before any handler sees them.
"""

from __future__ import annotations

import logging

from livekit.agents.telemetry.pii import is_pii_attribute


class WithoutPersonalFields(logging.Filter):
    """Takes personal fields off every record. Lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See :class:`logging.Filter`."""
        for name in [name for name in record.__dict__ if is_pii_attribute(name)]:
            delattr(record, name)
        return True


def keep_logs_private() -> None:
    """Put the filter on the framework's logger, once."""
    logger = logging.getLogger("livekit.agents")
    if not any(isinstance(one, WithoutPersonalFields) for one in logger.filters):
        logger.addFilter(WithoutPersonalFields())
