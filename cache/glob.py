"""Redis's own pattern language, so that a pattern can be narrowed before it reaches Redis.

The rules are those of ``KEYS`` and ``SCAN MATCH``: ``*`` any run, ``?`` one character, ``[abc]``, ``[a-z]``
and ``[^a]`` sets, a backslash makes the next character plain. The matcher remembers only the last star
(the classic two-pointer walk), so a hostile pattern costs at most pattern times key, never more.
"""

from __future__ import annotations


def matches(pattern: str, text: str) -> bool:
    """Whether ``text`` matches the Redis pattern ``pattern``."""
    if not (pattern.isascii() and text.isascii()):
        pattern, text = _octets(pattern), _octets(text)
    p = t = 0
    star = -1
    resume = 0
    while t < len(text):
        if p < len(pattern) and pattern[p] == "*":
            star, resume = p, t
            p += 1
            continue
        if p < len(pattern):
            fits, after = _one(pattern, p, text[t])
            if fits:
                p, t = after, t + 1
                continue
        if star < 0:
            return False
        resume += 1
        p, t = star + 1, resume
    while p < len(pattern) and pattern[p] == "*":
        p += 1
    return p == len(pattern)


def _octets(text: str) -> str:
    """One character for each byte, as Redis counts them."""
    return text.encode(errors="surrogateescape").decode("latin-1")


def _one(pattern: str, p: int, char: str) -> tuple[bool, int]:
    """Whether the single-character element at ``p`` fits ``char``, and where the next element begins."""
    kind = pattern[p]
    if kind == "?":
        return True, p + 1
    if kind == "[":
        return _set(pattern, p + 1, char)
    if kind == "\\" and p + 1 < len(pattern):
        p += 1
    return pattern[p] == char, p + 1


def _set(pattern: str, p: int, char: str) -> tuple[bool, int]:
    negated = p < len(pattern) and pattern[p] == "^"
    if negated:
        p += 1
    found = False
    # As in Redis, a set that is never closed reaches to the end of the pattern.
    while p < len(pattern) and pattern[p] != "]":
        if pattern[p] == "\\" and p + 1 < len(pattern):
            p += 1
            found |= pattern[p] == char
            p += 1
        elif p + 2 < len(pattern) and pattern[p + 1] == "-":
            low, high = sorted((pattern[p], pattern[p + 2]))
            found |= low <= char <= high
            p += 3
        else:
            found |= pattern[p] == char
            p += 1
    return found != negated, min(p + 1, len(pattern))


def closed(pattern: str) -> bool:
    """Whether more may follow ``pattern`` without changing its meaning: no open set, no backslash at its end."""
    p = 0
    inside = False
    while p < len(pattern):
        if pattern[p] == "\\":
            if p + 1 == len(pattern):
                return False
            p += 1
        elif not inside:
            if pattern[p] == "[":
                inside = True
                p += pattern[p + 1 : p + 2] == "^"
        elif pattern[p] == "]":
            inside = False
        elif pattern[p + 1 : p + 2] == "-":
            p += 2  # a range: whatever stands at its end closes nothing
            if p >= len(pattern):
                return False
        p += 1
    return not inside
