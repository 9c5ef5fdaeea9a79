"""Generates glob patterns that try to match other users' keys, or to cost too much."""

from __future__ import annotations

from random import Random
from typing import Final

NAMED: Final = (
    "*",
    "**",
    "?*",
    "[^x]*",
    "user:*",
    "user:123\\:*",
    "user:me:*",
    "user:me\\:*",
    "user:me2:*",
    "user:me*",
    "user:m?:*",
    "user:[a-z]*",
    "user:*:profile",
    "*:profile",
    "*profile*",
    "lock:*",
    "lease:*",
    "stale:*",
    "index:*",
    "system:*",
    "[l]*",
    "?ock:*",
    "\\lock:*",
    "{user:*}*",
    "*}",
    "unrelated",
    "user:me:*\x00",
    "\x00*",
    "*\r\nuser:me2:*",
    "user:me:* user:me2:*",
    "user:me:profile\r\nFLUSHALL",
    "[",
    "[^",
    "[]",
    "[^]*",
    "\\",
    "",
    "\ud800*",
    "user:*\udfff",
    "*\udc80*",
    "\U0001f600*",
    "%s*{0}",
)
TOO_LONG: Final = ("*" * 1025, "x" * 1_000_000, "user:*:" * 150_000, "[" * 1_048_576, "\x00" * 5_000)
COSTLY: Final = (
    "*a" * 512,
    "*[" + "b" * 1020 + "]",
    "?" * 1024,
    "*" * 1024,
    "[a-z]" * 204,
    "*?" * 511,
    "*" + "[ue]" * 200 + "x",
    "\\*" * 512,
)
_BITS: Final = (
    *("*", "*", "*", "?", "[", "]", "^", "-", "\\", ":", "{", "}", "\x00", "\n", "é", "\udc80", "a", "0"),
    *(
        "user:",
        "user",
        "me",
        "me2",
        "m",
        "ME",
        "other",
        "profile",
        "memory:",
        "lock:",
        "lease:{",
        "stale:{",
        "index:{",
        "system:",
    ),
    *("[^x]", "[a-z]", "[^:]", "[z-a]", "[\\]]", "[^]", "[]", "\\*", "\\:", "\\u"),
)


def hostile_pattern(marker: str, rng: Random) -> str:
    """Generate a pattern. Some contain ``marker``: a pattern is user input too and must not reach a log."""
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(NAMED)
    if kind < 0.31:
        return rng.choice(TOO_LONG)
    if kind < 0.34:
        return rng.choice(COSTLY)
    pattern = "".join(rng.choice(_BITS) for _ in range(rng.randrange(1, 9)))
    return f"{pattern}{marker}*" if kind < 0.4 else pattern


def usable(pattern: str) -> bool:
    """Whether the pattern must be accepted: not empty, at most 1024 characters, encodable as UTF-8."""
    return 0 < len(pattern) <= 1024 and not any("\ud800" <= char <= "\udfff" for char in pattern)
