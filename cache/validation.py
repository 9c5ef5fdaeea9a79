"""Checks arguments at once, with or without Redis, so that a programming error shows in every test.

Each check returns its argument. It raises TypeError if that is of the wrong type, ValueError if it cannot be used.
"""

from __future__ import annotations

from typing import Final

MAX_TTL: Final = 10**10
"""Seconds a TTL may have, three hundred years: in milliseconds since the epoch still a number Redis can hold."""
MAX_PATTERN: Final = 1024
"""Characters a pattern may have."""


def checked_key(key: object) -> str:
    """A key is a string that is not empty and can be written as UTF-8."""
    if not isinstance(key, str):
        raise TypeError(f"a cache key must be a string, not {type(key).__name__}")
    if not key:
        raise ValueError("the cache key is empty")
    if not key.isascii():
        _checked_utf8(key, "the cache key")
    return key


def checked_ttl(ttl: object) -> int:
    """A TTL is a whole number of seconds, from 1 to :data:`MAX_TTL`."""
    if not isinstance(ttl, int) or isinstance(ttl, bool):
        raise TypeError(f"a TTL is a whole number of seconds, not {type(ttl).__name__}")
    if ttl <= 0:
        raise ValueError(f"a TTL must be at least 1 second, not {ttl}; use delete() to remove a key")
    if ttl > MAX_TTL:
        raise ValueError(f"a TTL must be at most {MAX_TTL} seconds, not {ttl}; None is for no expiry")
    return ttl


def checked_amount(amount: object) -> int:
    """A counter is changed by a whole number of 64 bits."""
    if not isinstance(amount, int) or isinstance(amount, bool):
        raise TypeError(f"a counter is changed by a whole number, not by a {type(amount).__name__}")
    if not -(2**63) <= amount < 2**63:
        raise ValueError("a counter has 64 bits")
    return amount


def checked_seconds(seconds: object, what: str) -> float:
    """A duration is a positive number of seconds, at most :data:`MAX_TTL`. ``what`` names it in the error."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"{what} is a number of seconds, not {type(seconds).__name__}")
    if not 0 < seconds <= MAX_TTL:
        raise ValueError(f"{what} must be more than 0 seconds and at most {MAX_TTL}, not {seconds}")
    return float(seconds)


def checked_pattern(pattern: object) -> str:
    """A pattern is a string of 1 to :data:`MAX_PATTERN` characters that can be written as UTF-8."""
    if not isinstance(pattern, str):
        raise TypeError(f"a pattern must be a string, not {type(pattern).__name__}")
    if not pattern:
        raise ValueError("the pattern is empty; '*' matches everything")
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"the pattern has {len(pattern)} characters; at most {MAX_PATTERN} are allowed")
    _checked_utf8(pattern, "the pattern")
    return pattern


def _checked_utf8(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} holds half a character (a lone surrogate) and cannot be sent") from None
