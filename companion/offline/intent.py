"""What a sentence asks for, found by its words: which tool to call, or what it tells about the person."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from ..forget_request import FORGET_EVERYTHING, FORGET_FACT, forget_request, plain


@dataclass(frozen=True, slots=True)
class Call:
    """A tool to call."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)


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
    (rf"{_POLITE}remember(?: that)? (?!me\b)(.{{3,}})", "rememberFact", "fact"),
)
_NEGATED: Final = re.compile(r"\b(?:don't|do not|never(?! mind)|not to|should not|shouldn't)\b", re.IGNORECASE)

# A thing ends where the next one begins.
_THING: Final = r"(?!(?:it|this|that|you|your|to know)\b)[^.,!?;]{2,60}?"
_END: Final = r"(?= and i\b| but\b|[.,!?;]|$)"
_ABOUT_ME: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (
        re.compile(
            r"(?i:\b(?:my name is|my name's|i am called|i'm called)) (?!not\b)(\w[\w'-]{1,30}(?: [A-Z][\w'-]{1,30})?)"
        ),
        "Name",
    ),
    (re.compile(r"\b(?:[Cc]all me|[Ii]'m|[Ii] am) ([A-Z][a-z'-]{1,30})(?=[.,!]|$| and\b)"), "Name"),
    (re.compile(rf"\bi (?:really )?(?:like|love|enjoy) ({_THING}){_END}", re.IGNORECASE), "Likes"),
    (re.compile(rf"\bi (?:live|am living) in ({_THING}){_END}", re.IGNORECASE), "Lives in"),
    (re.compile(rf"\bi work ((?:as|at|for|in) {_THING}){_END}", re.IGNORECASE), "Work"),
    (re.compile(rf"\bmy favou?rite (?=[\w ]{{2,20}} is )({_THING}){_END}", re.IGNORECASE), "Favourite"),
)
# In the same clause, before the fact: "I never said that I like chess". "Don't forget that I like chess" tells it.
_NOT_SO: Final = re.compile(
    r"(?:\b(?:not|never(?! mind)|nobody|doubt|wrong|false|untrue|if|whether|unless|pretend|wish|hardly|neither|nor"
    r"|you (?:said|say|think|thought|claimed?))\b|n't\b)(?! (?:ever )?forget\b)[^,;:]*$",
    re.IGNORECASE,
)
_NAMED: Final = re.compile(r"\b(?:my name|called|call me)\b", re.IGNORECASE)
_ONLY_ONE: Final = ("Name", "Lives in", "Work")


def command(said: str) -> Call | None:
    """The tool call that the words ask for; None if they are just talk."""
    if request := forget_request(said):
        if request.scope == "thing":
            return Call(FORGET_FACT, {"what": request.what})
        return Call(FORGET_EVERYTHING, {"confirm": False}) if request.scope == "everything" else None
    said = plain(said)
    for pattern, tool, argument in _COMMANDS:
        found = re.search(pattern, said, re.IGNORECASE)
        if found is None or (tool in ("clearUserCache", "invalidateCache") and _NEGATED.search(said)):
            continue
        if not argument:
            return Call(tool)
        value = found.group(1)
        return Call(tool, {argument: value.rstrip(".,;!" if argument == "pattern" else " .,;!?") or value})
    return None


def stated_facts(said: str) -> list[tuple[str, str]]:
    """The facts that the words state about the person: ("Name", "Ada"), ("Likes", "chess").

    A question states none, and neither does what is to be forgotten, or is said not to be so.
    """
    found = []
    while (request := forget_request(said)) is not None:
        said = request.rest
    for sentence in re.findall(r"[^.!?]+[.!?]?", plain(said)):
        if sentence.endswith("?"):
            continue
        for pattern, label in _ABOUT_ME:
            if (match := pattern.search(sentence)) and not _NOT_SO.search(sentence[: match.start()]):
                value = match.group(1).strip()
                found.append((label, f"{value[:1].upper()}{value[1:]}" if label == "Name" else value))
    return found


def profile_with(said: str, profile: str) -> str | None:
    """``profile`` with what ``said`` tells about the person; None if it tells nothing new."""
    before = [line for line in profile.splitlines() if line.strip()]
    lines = list(before)
    for label, value in stated_facts(said):
        line = f"{label}: {value}"
        if line in lines or (label == "Name" and not _NAMED.search(said) and _has_name(before)):
            continue  # "I am German" is no new name
        if label in _ONLY_ONE:
            lines = [other for other in lines if not other.lower().startswith(f"{label.lower()}:")]
        lines.insert(0 if label == "Name" else len(lines), line)
    return "\n".join(lines) if lines != before else None


def _has_name(lines: list[str]) -> bool:
    return any(line.lower().startswith("name:") for line in lines)
