"""What a sentence asks for, found by its words: which tool to call, or what it tells about the person."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Call:
    """A tool to call."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)


# Words, the tool they ask for, and the argument that the first group is. The first that fits wins.
_COMMANDS: Final[tuple[tuple[str, str, str], ...]] = (
    (r"\bcache\b.*\b(?:stat\w*|health|hit rate)", "getRedisCacheStats", ""),
    (r"\b(?:stat\w*|hit rate)\b.*\bcache\b", "getRedisCacheStats", ""),
    (r"\b(?:clear|empty|flush|wipe|reset)\b.*\bcache\b", "clearUserCache", ""),
    (
        r"\binvalidate\s+(?:the\s+)?(?:cache\s+)?(?:for\s+)?[`'\"“]?([^\s`'\"”]+)",
        "invalidateCache",
        "pattern",
    ),
    (r"\bdo you (?:still )?(?:remember|know) .*?about (?!me\b)(.{2,})", "recallFacts", "query"),
    (r"\bwhat did i (?:say|tell you) about (.{2,})", "recallFacts", "query"),
    (r"\bwhat do you (?:know|remember) about me\b", "getUserProfile", ""),
    (r"\bwho am i\b|\bwhat(?:'s| is) my name\b|\bmy profile\b", "getUserProfile", ""),
    (r"^(?:please |can you |could you )*remember(?: that)? (.{3,})", "rememberFact", "fact"),
)
_ABOUT_ME: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"(?i:\b(?:my name is|call me|i am called)) (\w[\w'-]{1,30}(?: [A-Z][\w'-]{1,30})?)"), "Name"),
    (re.compile(r"\b[Ii](?:'m| am) ([A-Z][a-z'-]{1,30})(?=[.,!]|$)"), "Name"),
    (re.compile(r"\bi (?:really )?(?:like|love|enjoy) ([^.,!?;]{2,60})", re.IGNORECASE), "Likes"),
    (re.compile(r"\bi (?:live|am living) in ([^.,!?;]{2,40})", re.IGNORECASE), "Lives in"),
    (re.compile(r"\bi work (?:as|at|for|in) ([^.,!?;]{2,60})", re.IGNORECASE), "Work"),
    (re.compile(r"\bmy favou?rite ([\w ]{2,20} is [^.,!?;]{2,40})", re.IGNORECASE), "Favourite"),
)


def command(said: str) -> Call | None:
    """The tool call that the words ask for; None if they are just talk."""
    for pattern, tool, argument in _COMMANDS:
        if found := re.search(pattern, said, re.IGNORECASE):
            if not argument:
                return Call(tool)
            value = found.group(1)
            return Call(tool, {argument: value if argument == "pattern" else value.strip(" .!?") or value})
    return None


def profile_with(said: str, profile: str) -> str | None:
    """``profile`` with what ``said`` tells about the person; None if it tells nothing new."""
    before = [line for line in profile.splitlines() if line.strip()]
    lines = list(before)
    for pattern, label in _ABOUT_ME:
        if not (found := pattern.search(said)):
            continue
        value = found.group(1).strip()
        if label == "Name":
            others = [line for line in lines if not line.lower().startswith("name:")]
            lines = [f"Name: {value[:1].upper()}{value[1:]}", *others]
        elif (line := f"{label}: {value}") not in lines:
            lines.append(line)
    return "\n".join(lines) if lines != before else None
