"""Elapsed time in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

MAX_SKEW: Final = timedelta(seconds=5)
"""By which the clock of another worker may be ahead; a time further in the future is of a clock that was wrong."""


def age_of(moment: datetime, now: datetime | None = None) -> timedelta | None:
    """Time since ``moment``; None where that is unknown, because ``moment`` is in the future."""
    age = (now or datetime.now(UTC)) - moment
    return None if age < -MAX_SKEW else max(age, timedelta(0))


def ago(moment: datetime, now: datetime | None = None) -> str:
    """``moment`` as "moments ago", "5 minutes ago", "3 hours ago", "2 days ago"; "a while ago" where unknown."""
    age = age_of(moment, now)
    if age is None:
        return "a while ago"
    seconds = age.total_seconds()
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "moments ago"
