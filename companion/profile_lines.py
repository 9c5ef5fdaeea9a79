"""A profile as lines: the three-way merge of two authors' texts, and the limit on what one profile holds.

A profile is a list of distinct lines. Two texts that were made from the same base are combined as sets of lines,
``there - (base - new) + (new - base)``: what either author removed is removed, what either added is there. Every writer
of profiles uses these functions, whichever store they write to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MAX_PROFILE: Final = 4000
"""Characters of a profile, where it is saved, merged and read."""


def lines_of(text: str) -> list[str]:
    """The distinct lines of a profile, in order, without blanks around them and without empty ones."""
    return list(dict.fromkeys(filter(None, map(str.strip, text.splitlines()))))


def text_of(lines: Iterable[str]) -> str:
    """The profile that has these lines."""
    return "\n".join(lines)


def label_of(line: str) -> str:
    """What stands before the colon of a line "Label: value", in lower case; empty for a line without a label."""
    label, colon, _ = line.partition(":")
    return label.strip().casefold() if colon else ""


def merge(there: str, base: str, new: str) -> str:
    """Apply to a stored profile what the author of another one has changed.

    Args:
        there: the stored profile.
        base: the profile that the author had read.
        new: the profile that the author has written.

    Returns:
        The stored lines without those that the author removed, then those that the author added. An added line of a
        label takes the place of the removed one of its label. ``new`` if the stored lines are those of ``base``, and
        ``there`` if nothing changes.
    """
    stored, before, after = lines_of(there), lines_of(base), lines_of(new)
    if stored == before:
        return new
    removed = [line for line in before if line not in set(after)]
    added = [line for line in after if line not in set(before)]
    replacing: dict[str, str] = {}
    for line in added:
        place = next((old for old in removed if label_of(old) and label_of(old) == label_of(line)), None)
        if place is not None:
            replacing.setdefault(place, line)
    kept = [replacing.get(line, "") if line in removed else line for line in stored]
    merged = list(dict.fromkeys([*filter(None, kept), *added]))
    return there if merged == stored else text_of(merged)


def add_lines(there: str, new: str, known: Iterable[str]) -> str:
    """Add to a stored profile the lines of a whole text that was written before it, and whose base is not known.

    Args:
        there: the stored profile.
        new: the whole text.
        known: lines that earlier profiles had: one of them that is not in ``there`` has been removed since.

    Returns:
        The stored lines, then those of ``new`` that no author has removed.
    """
    removed = set(known) - set(lines_of(there))
    return merge(there, "", text_of(line for line in lines_of(new) if line not in removed))


def within_limit(text: str) -> tuple[str, list[str]]:
    """Split a profile at the limit, between lines.

    Args:
        text: a profile of any length.

    Returns:
        A profile of at most ``MAX_PROFILE`` characters, and the lines that have no room in it, in order.
    """
    if len(text) <= MAX_PROFILE:
        return text, []
    kept: list[str] = []
    surplus: list[str] = []
    length = -1  # the first line has no line end before it
    for line in lines_of(text):
        fits = length + 1 + len(line) <= MAX_PROFILE
        (kept if fits else surplus).append(line)
        length += 1 + len(line) if fits else 0
    return text_of(kept), surplus
