"""Turns as the lines of a transcript in a prompt, and which turns it holds."""

from __future__ import annotations

from collections.abc import Sequence

from .forget_request import forget_request
from .prompts import transcript_line
from .store import Turn


def to_bring_up(turns: Sequence[Turn]) -> list[Turn]:
    """The turns that may become a topic, a summary or a greeting.

    A request to forget may not, nor may what the companion answers to it, nor what was forgotten.
    """
    kept: list[Turn] = []
    skipping = False
    for turn in turns:
        if turn.role == "user":
            skipping = forget_request(turn.text) is not None
        if not (skipping or turn.skipped):
            kept.append(turn)
    return kept


def transcript_lines(turns: Sequence[Turn], *, max_chars: int) -> list[str]:
    """The turns, one ``role: text`` a line, each text cut at ``max_chars`` characters."""
    return [transcript_line(turn.role, turn.text[:max_chars]) for turn in turns]


def transcript(turns: Sequence[Turn], *, max_turns: int, max_chars: int) -> str:
    """The last ``max_turns`` turns as the text of :func:`transcript_lines`."""
    return "\n".join(transcript_lines(turns[-max_turns:], max_chars=max_chars))
