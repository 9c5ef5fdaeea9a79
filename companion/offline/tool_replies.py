"""What the offline companion says about a tool's result: in words, never JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from .profile_facts import clauses
from .statements import Fact


def tell(tool: str, output: str, facts: Sequence[tuple[str, str]] = ()) -> str:
    """The result of ``tool`` as a sentence. An error comes as the text it is.

    Args:
        tool: its name.
        output: what it returned.
        facts: those that the person has just stated, see :func:`companion.offline.statements.stated_facts`.
    """
    result = fields_of(output)
    if not result:
        return "Done." if _is_json(output) else output or "Done."
    if result.get("candidates"):
        return f"{result.get('message')} {'; '.join(map(str, result['candidates']))}{_shown(result)}."
    if result.get("success") is False:
        return str(result.get("message") or "That did not work.")
    if tool == "updateUserProfile":
        return _updated(facts)
    return _TELL.get(tool, _plain)(result)


def fields_of(output: str) -> dict[str, Any]:
    """The fields of a tool's result; none where it is no JSON object."""
    try:
        result: Any = json.loads(output)
    except ValueError:
        return {}
    return result if isinstance(result, dict) else {}


def _is_json(output: str) -> bool:
    try:
        json.loads(output)
    except ValueError:
        return False
    return True


def _updated(facts: Sequence[tuple[str, str]]) -> str:
    name = next((value for label, value in reversed(facts) if label == "Name"), "")  # as it is stored: the last one
    learnt = clauses([Fact(*fact) for fact in facts if fact[0] != "Name"])
    hello = f"Nice to meet you, {name}. I will remember your name" if name else ""
    if not learnt:
        return f"{hello}. What do you like to do?" if name else "I will remember that."
    return f"{hello}, and that {learnt}." if name else f"I will remember that {learnt}."


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
        parts.append(f"You asked me to remember: {'; '.join(map(str, facts))}{_shown(result)}.")
    parts.append(str(result.get("message") or ""))
    return " ".join(part for part in parts if part)


def _context(result: dict[str, Any]) -> str:
    summary = str(result.get("summary") or "").strip().replace("They said:", "you said")
    count = result.get("conversations") or 0
    if not summary:
        return "This is our first conversation." if not count else "I have no note of our last conversation."
    return f"We have talked {count} time{'s' if count != 1 else ''} before. Last time {summary}"


def _facts(result: dict[str, Any]) -> str:
    facts = result.get("facts") or []
    if not facts:
        return "I do not remember anything about that."
    return f"Yes: {'; '.join(map(str, facts))}{_shown(result)}. {result.get('message') or ''}".rstrip()


def _forgotten(result: dict[str, Any]) -> str:
    removed = "; ".join(map(str, result.get("removed") or []))
    return f"{result.get('message')}{f' It was: {removed}.' if removed else ''}"


def _shown(result: dict[str, Any]) -> str:
    return f" (that is {result['shown']})" if result.get("shown") else ""


_TELL: dict[str, Callable[[dict[str, Any]], str]] = {
    "getRedisCacheStats": _stats,
    "getUserProfile": _profile,
    "recallFacts": _facts,
    "forgetFact": _forgotten,
    "getConversationContext": _context,
}
