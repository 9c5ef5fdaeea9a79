"""What the offline companion says about a tool's result: in words, never JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def tell(tool: str, output: str, arguments: str = "{}") -> str:
    """The result of ``tool``, called with ``arguments``, as a sentence. An error comes as the text it is."""
    try:
        result: Any = json.loads(output)
    except ValueError:
        return output or "Done."
    if not isinstance(result, dict):
        return "Done."
    if result.get("success") is False:
        return str(result.get("message") or "That did not work.")
    if tool == "updateUserProfile":
        return _updated(json.loads(arguments).get("profile", ""))
    return _TELL.get(tool, _plain)(result)


def _updated(profile: str) -> str:
    """What was learnt stands in the last line of the profile, or in its name."""
    lines = profile.splitlines() or [""]
    name = lines[0].removeprefix("Name: ") if lines[0].startswith("Name: ") else ""
    if name and len(lines) == 1:
        return f"Nice to meet you, {name}. I will remember your name. What do you like to do?"
    label, _, value = lines[-1].partition(": ")
    learnt = {"Likes": f"you like {value}", "Lives in": f"you live in {value}", "Favourite": f"your favourite {value}"}
    if label in learnt:
        return f"I will remember that {learnt[label]}{f', {name}' if name else ''}."
    return f"I will remember that{f', {name}' if name else ''}."


def _plain(result: dict[str, Any]) -> str:
    return str(result.get("message") or "Done.")


def _stats(result: dict[str, Any]) -> str:
    if result.get("status") == "disabled":
        return "The cache is switched off, so everything comes straight from the database."
    if result.get("status") == "disconnected":
        return "The cache is not reachable at the moment. I go on without it."
    hits, misses = result.get("cache_hits", 0), result.get("cache_misses", 0)
    return (
        f"The cache is {result.get('status')}: {hits} of {hits + misses} lookups were answered from it, "
        f"a hit rate of {result.get('hit_rate')}, with {result.get('redis_memory')} of memory in use."
    )


def _profile(result: dict[str, Any]) -> str:
    profile, facts = str(result.get("profile") or "").strip(), result.get("facts") or []
    if not profile and not facts:
        return "I do not know anything about you yet. Tell me your name, or something you like."
    known = "; ".join(line.strip() for line in profile.splitlines() if line.strip())
    parts = [f"This is what I know: {known}." if known else ""]
    if facts:
        parts.append(f"You asked me to remember: {'; '.join(map(str, facts))}.")
    parts.append(str(result.get("message") or ""))
    return " ".join(part for part in parts if part)


def _facts(result: dict[str, Any]) -> str:
    facts = result.get("facts") or []
    return f"Yes: {'; '.join(map(str, facts))}." if facts else "I do not remember anything about that."


_TELL: dict[str, Callable[[dict[str, Any]], str]] = {
    "getRedisCacheStats": _stats,
    "getUserProfile": _profile,
    "recallFacts": _facts,
}
