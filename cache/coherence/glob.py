"""Redis's pattern language, so that a pattern can be matched and narrowed before it reaches Redis.

The rules are those of ``KEYS`` and ``SCAN MATCH``: ``*`` any run, ``?`` one character, ``[abc]``, ``[a-z]`` and
``[^a]`` sets, a backslash makes the next character literal. A pattern is compiled to a regular expression once. The
text between two stars is matched at its first occurrence and not again, so a hostile pattern costs at most pattern
times key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

_SPECIAL: Final = re.compile(r"[*?\[\\]")


def matches(pattern: str, text: str) -> bool:
    """Whether ``text`` matches the Redis pattern ``pattern``."""
    if not (pattern.isascii() and text.isascii()):
        pattern, text = _octets(pattern), _octets(text)
    return _compiled(pattern)(text) is not None


def plain_start(pattern: str) -> str:
    """The literal prefix of everything that matches ``pattern``."""
    return _SPECIAL.split(pattern, maxsplit=1)[0]


def _octets(text: str) -> str:
    """One character for each byte, as Redis counts them."""
    return text.encode(errors="surrogateescape").decode("latin-1")


@lru_cache(maxsize=512)  # more than can be pending at a time, or every read would compile them all
def _compiled(pattern: str) -> Callable[[str], re.Match[str] | None]:
    parts: list[str] = [""]  # each of fixed length; a star separates two of them
    p = 0
    while p < len(pattern):
        if pattern[p] == "*":
            if parts[-1] or len(parts) == 1:
                parts.append("")
            p += 1
            continue
        element, p = _element(pattern, p)
        parts[-1] += element
    first, *middle = parts
    last = middle.pop() if middle else None
    # An atomic group is not re-entered on backtracking, which keeps many stars cheap.
    between = "".join(f"(?>.*?{part})" for part in middle)
    return re.compile(first + between + ("" if last is None else f".*{last}") + r"\Z", re.DOTALL).match


def _element(pattern: str, p: int) -> tuple[str, int]:
    """The regular expression of the single-character element at ``p``, and where the next element begins."""
    kind = pattern[p]
    if kind == "?":
        return ".", p + 1
    if kind == "[":
        return _set(pattern, p + 1)
    if kind == "\\" and p + 1 < len(pattern):
        p += 1
    return re.escape(pattern[p]), p + 1


def _set(pattern: str, p: int) -> tuple[str, int]:
    negated = p < len(pattern) and pattern[p] == "^"
    if negated:
        p += 1
    members = []
    # As in Redis, a set that is never closed reaches to the end of the pattern.
    while p < len(pattern) and pattern[p] != "]":
        if pattern[p] == "\\" and p + 1 < len(pattern):
            low = high = pattern[p + 1]
            p += 2
        elif p + 2 < len(pattern) and pattern[p + 1] == "-":
            low, high = sorted((pattern[p], pattern[p + 2]), key=_signed)
            if _signed(low) < 0 <= _signed(high):  # on both sides of zero
                members.append(f"\\x{ord(low):02x}-\\xff")
                low = "\0"
            p += 3
        else:
            low = high = pattern[p]
            p += 1
        members.append(f"\\x{ord(low):02x}-\\x{ord(high):02x}")
    after = min(p + 1, len(pattern))
    if not members:
        return "." if negated else "(?!)", after
    return f"[{'^' if negated else ''}{''.join(members)}]", after


def _signed(octet: str) -> int:
    """A byte as a C ``char``, as which Redis compares the ends of a range on x86: beyond ASCII it is negative."""
    return (ord(octet) ^ 0x80) - 0x80
