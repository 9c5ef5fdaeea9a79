"""What words ask for, and what they make of the profile: which tool to call, with what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from ..forget_request import FORGET_EVERYTHING, FORGET_FACT, forget_request, plain
from .profile_facts import corrected, known, line_of, replaced_by
from .statements import expanded, facts_in
from .tables import commands, pattern


@dataclass(frozen=True, slots=True)
class Call:
    """A tool to call."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)


REMEMBER: Final = "rememberFact"
READING: Final = ("getUserProfile", "recallFacts", "getConversationContext", "getRedisCacheStats")
"""Tools that change nothing: what was stated beside the question is stored first."""


def command(said: str) -> Call | None:
    """The tool call that the words ask for; None if they are just talk."""
    if request := forget_request(said):
        if request.scope == "thing":
            return Call(FORGET_FACT, {"what": request.what})
        return Call(FORGET_EVERYTHING, {"confirm": False}) if request.scope == "everything" else None
    said = plain(said)
    for words, tool, argument in commands():
        found = words.search(said)
        if found is None or (tool in ("clearUserCache", "invalidateCache") and pattern("<prohibited>").search(said)):
            continue
        if not argument:
            return Call(tool)
        value = found.group(1)
        return Call(tool, {argument: value.rstrip(".,;!" if argument == "pattern" else " .,;!?") or value})
    return None


def profile_with(said: str, profile: str, before: str = "") -> str | None:
    """``profile`` with what ``said`` states about the person; None if it states nothing new.

    Args:
        said: the person's words.
        profile: the lines that are known.
        before: what the person said before, which a "no, ..." corrects.
    """
    old = [line for line in profile.splitlines() if line.strip()]
    words, facts, lines = expanded(said), facts_in(said), list(old)
    stated = [fact for fact in facts if fact.so]
    wrong = facts_in(before) if pattern("<correcting>").match(words) else []
    if not stated:
        lines = corrected(words, lines, wrong)
    elif wrong:
        gone = [line_of(fact) for fact in wrong if any(fact.label == new.label for new in stated)]
        lines = [line for line in lines if line not in gone]
    renamed = bool(wrong) or facts != stated or pattern("<naming>").search(words) is not None
    for fact in facts if stated else ():
        if fact.so and known(fact, lines):
            continue
        if fact.label == "Name" and not renamed and any(line.lower().startswith("name:") for line in lines):
            continue  # "I am Groot" is no new name
        lines = [line for line in lines if not replaced_by(fact, line)]
        if fact.so:
            lines.insert(0 if fact.label == "Name" else len(lines), line_of(fact))
    return "\n".join(lines) if lines != old else None
