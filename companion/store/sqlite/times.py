"""Times as the SQLite store keeps them: whole microseconds since 1970, which sort and are exact."""

from datetime import UTC, datetime, timedelta

NOW = "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000"
"""SQL for the present moment: the one clock by which rows are dated and aged. It has milliseconds."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(moment: datetime) -> int:
    """The number that stands for a moment."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(count: int) -> datetime:
    """The moment that a number stands for, in UTC."""
    return _EPOCH + count * _MICROSECOND
