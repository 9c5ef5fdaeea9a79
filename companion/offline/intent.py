"""What words ask for, and what they make of the profile: which tool to call, with what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..forget_request import FORGET_EVERYTHING, FORGET_FACT, forget_request, plain
from .statements import Fact, expanded, facts_in
from .tables import labels, pattern


@dataclass(frozen=True, slots=True)
class Call:
    """A tool to call."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)


REMEMBER: Final = "rememberFact"
READING: Final = ("getUserProfile", "recallFacts", "getConversationContext", "getRedisCacheStats")
"""Tools that change nothing: what was stated beside the question is stored first."""
_POLITE: Final = r"^(?:please,? |can you |could you |would you |and |now |ok,? )*"
# Words, the tool they ask for, and the argument that the first group is. The first that fits wins.
_COMMANDS: Final[tuple[tuple[str, str, str], ...]] = (
    (r"\b(?:cache|redis)\b.*\b(?:stat\w*|health\w*|hit rate|doing)\b", "getRedisCacheStats", ""),
    (r"\b(?:stat\w*|health\w*|hit rate)\b.*\b(?:cache|redis)\b", "getRedisCacheStats", ""),
    (r"^how(?:'s| is)(?: the| my)? (?:cache|redis)\b|\bhit rate\b", "getRedisCacheStats", ""),
    # A pattern has a colon or a star: "invalidate that argument" is just talk.
    (r"\binvalidate\b.*?[\s`'\"“]([^\s`'\"“”:*]*[:*][^\s`'\"”]*)", "invalidateCache", "pattern"),
    (r"\b(?:clear|empty|flush|wipe|reset|refresh|invalidate)\b.*\bcache\b", "clearUserCache", ""),
    (r"\bdo you (?:still )?(?:remember|know) .*?about (?!me\b)(.{2,})", "recallFacts", "query"),
    (r"\bdo you (?:still )?(?:remember|know) (my .{2,})", "recallFacts", "query"),
    (r"\bwhat did i (?:say|tell you) about (.{2,})", "recallFacts", "query"),
    (r"\bwhat did we (?:talk|speak) about (?:last time|before|the last time)\b", "getConversationContext", ""),
    (r"\bwhat (?:do )?you (?:know|remember) about me\b", "getUserProfile", ""),
    (r"\bdo you (?:still )?(?:remember|know) (?:(?:(?:any|some)thing )?about )?me\b", "getUserProfile", ""),
    (r"\bwho am i\b|\bwhat(?:'s| is) my name\b|\b(?:show|see|read)\b.*\bmy profile\b", "getUserProfile", ""),
    (r"^(?:when|where|who|what|which|how)\b.*\b(my .{2,}\?)$", "recallFacts", "query"),
    (rf"{_POLITE}remember(?: that)? (?!me\b)(.{{3,}})", REMEMBER, "fact"),
)
_NEGATED: Final = re.compile(r"\b(?:don't|do not|never(?! mind)|not to|should not|shouldn't)\b", re.IGNORECASE)


def command(said: str) -> Call | None:
    """The tool call that the words ask for; None if they are just talk."""
    if request := forget_request(said):
        if request.scope == "thing":
            return Call(FORGET_FACT, {"what": request.what})
        return Call(FORGET_EVERYTHING, {"confirm": False}) if request.scope == "everything" else None
    said = plain(said)
    for words, tool, argument in _COMMANDS:
        found = re.search(words, said, re.IGNORECASE)
        if found is None or (tool in ("clearUserCache", "invalidateCache") and _NEGATED.search(said)):
            continue
        if not argument:
            return Call(tool)
        value = found.group(1)
        return Call(tool, {argument: value.rstrip(".,;!" if argument == "pattern" else " .,;!?") or value})
    return None


# -- the profile -------------------------------------------------------------------------------------------------


_CORRECTING: Final = r"\W*(?:no|nope|sorry|wait|correction|oops|i meant?)\b"
_COMMON: Final = {"called", "is", "in", "and", "as", "at", "to", "for", "i", "you"}
"""Words of a value by which no question means it."""
_BARE: Final = (
    r"(?:(?:no|nope|sorry|wait|oops|correction|actually|it is|i (?:said|meant?)|make that)\b\W*)*"
    r"(?P<right>(?-i:[A-Z\d])[\w'-]*(?: [\w'-]+){0,2}?|(?<=meant )[\w'-]+(?: [\w'-]+)?)"
)
_CORRECTIONS: Final = (
    rf"{_BARE}(?:,? (?:and )?not (?P<wrong>[^.,!?]{{2,40}}))?\W*$",
    rf"(?:(?:no|nope|sorry|wait|actually|it is|i am)\b\W*)*not (?P<wrong>[^.,!?]{{2,40}}?)(?:,| but)+ {_BARE}\W*$",
)


def profile_with(said: str, profile: str, before: str = "") -> str | None:
    """``profile`` with what ``said`` states about the person; None if it states nothing new.

    Args:
        said: the person's words.
        profile: the lines that are known.
        before: what the person said before, which a "no, ..." corrects.
    """
    old = [line for line in profile.splitlines() if line.strip()]
    facts, lines = facts_in(said), list(old)
    correcting = pattern(_CORRECTING).match(expanded(said)) is not None
    stated = [fact for fact in facts if fact.so]
    if not stated:
        lines = _corrected(expanded(said), lines, facts_in(before) if correcting else [])
    elif correcting:
        wrong = [fact for fact in facts_in(before) if any(fact.label == new.label for new in stated)]
        lines = [line for line in lines if line not in map(line_of, wrong)]
    for fact in facts:
        if not stated or (fact.so and known(fact, lines)):
            continue
        named = (
            fact.label != "Name"
            or correcting
            or pattern(r"\b(?:my name|called|calls? me|go by|speaking)\b").search(said)
        )
        if not named and any(_split(line)[0] == "name" for line in old):
            continue  # "I am Groot" is no new name
        lines = [line for line in lines if not _goes(line, fact)]
        if fact.so:
            lines.insert(0 if fact.label == "Name" else len(lines), line_of(fact))
    return "\n".join(lines) if lines != old else None


def says(line: str, fact: Fact) -> bool:
    """Whether a line of a profile says just this fact, or the opposite where it is a dislike."""
    label, value = _split(line)
    opposite = "likes" if fact.label == "Dislikes" else ""
    return label in (fact.label.lower(), opposite) and _items(value) <= _items(fact.value)


def answer_from(question: str, lines: Sequence[str]) -> str:
    """The answer of a profile to a question; empty if it is none, or the profile does not know."""
    asked = expanded(question).lower()
    if not re.match(
        r"(?:do you (?:know|remember) |tell me |and |so )*(?:what|where|when|who|which|how|do|am|is|can)\b", asked
    ):
        return ""
    for name, label in labels().items():
        if not pattern(label.asked).search(asked):
            continue
        values = [value for known, value in map(_split, lines) if known == name.lower()]
        mentioned = [value for value in values if (_words(value) - _COMMON) & _words(asked)]
        if chosen := mentioned or ([] if re.match(r"(?:do|am|is|can)\b(?! you)", asked) else values):
            found = re.sub(r"\b(?:my|our)\b", "your", label.clause.format("; ".join(chosen)))
            return f"{found[:1].upper()}{found[1:]}."
    return ""


def line_of(fact: Fact) -> str:
    """The fact as a line of a profile."""
    return f"{fact.label}: {fact.value}"


def known(fact: Fact, lines: Sequence[str]) -> bool:
    """Whether lines of a profile say a fact already, in whatever case, punctuation and order."""
    values = [value for label, value in map(_split, lines) if label == fact.label.lower()]
    if labels()[fact.label].longer and any(_words(fact.value) <= _words(value) for value in values):
        return True
    if any(re.findall(r"\w+", line.casefold()) == re.findall(r"\w+", line_of(fact).casefold()) for line in lines):
        return True
    return _items(fact.value) <= set().union(*map(_items, values))


def _goes(line: str, fact: Fact) -> bool:
    """Whether a line is no longer true, or needless, when the fact is."""
    label, value = _split(line)
    if label == labels()[fact.label].opposite.lower():
        return _items(value) <= _items(fact.value)
    if label != fact.label.lower():
        return False
    if not fact.so:
        return _items(value) <= _items(fact.value)
    slot = labels()[fact.label].slot
    both = [pattern(slot).match(text) for text in (value, fact.value)] if slot is not None else [None]
    if all(both) and len({found.group(found.lastindex or 0).casefold() for found in both if found}) == 1:
        return True
    return _items(value) <= _items(fact.value) or (labels()[fact.label].longer and _words(value) <= _words(fact.value))


def _corrected(said: str, lines: list[str], before: Sequence[Fact]) -> list[str]:
    """The lines after "it is Bergen, not Oslo", or "no, Bergen" straight after "I live in Oslo"."""
    found = next(filter(None, (pattern(words).match(said) for words in _CORRECTIONS)), None)
    wrong = (found["wrong"] or (before[-1].value if before else "")) if found else ""
    if not found or not wrong:
        return lines
    return [pattern(rf"\b{re.escape(wrong)}\b").sub(lambda _: str(found["right"]), line) for line in lines]


def _split(line: str) -> tuple[str, str]:
    label, _, value = line.partition(":")
    return label.strip().lower(), value.strip()


def _items(value: str) -> set[str]:
    """What a value lists, without what may be left out."""
    parts = re.split(r",? and |, |/", " ".join(re.findall(r"[^.!?;'’\"]+", value.casefold())))
    return {re.sub(r"^(?:(?:the|an?|some|all|my|to|playing|really|of) )*", "", part.strip()) for part in parts}


def _words(value: str) -> set[str]:
    return set(re.findall(r"\w+", value.casefold())) - {"a", "an", "the", "my", "one"}
