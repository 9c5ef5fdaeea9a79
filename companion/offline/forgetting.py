"""What in a conversation asks to forget, and what follows from the answers of the tools that do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from livekit.agents import llm

from ..forget_request import FORGET_EVERYTHING, FORGET_FACT, denied, forget_request
from .intent import REMEMBER, Call, command
from .profile_facts import denied_by
from .statements import Fact, facts_in, stated_facts
from .tables import pattern
from .tool_replies import fields_of
from .turns import Item, role_of, text_of

_KEPT: Final = "All right, I keep it."


def asked_to_forget(said: list[str], profile: str) -> Call | None:
    """The call for what only the profile, or what was said before, shows to be a request to forget."""
    request = forget_request(said[-1]) if said else None
    if request is not None and request.scope == "last":
        earlier = [words for words in said[:-1] if forget_request(words) is None]
        before = [*earlier, *([request.before] if request.before else [])]
        if not before:
            return None
        learnt = [f"{label}: {value}" for label, value in stated_facts(before[-1])]
        kept = command(before[-1])
        fact = kept.arguments["fact"] if kept is not None and kept.tool == REMEMBER else before[-1].strip()
        return Call(FORGET_FACT, {"what": learnt[-1] if learnt else fact})
    if request is None and said:
        # "I don't like chess" corrects a profile that says otherwise; else it is just talk, or a dislike.
        facts = facts_in(said[-1])
        if any(fact.so and fact.label != "Dislikes" for fact in facts):
            return None
        facts += [Fact(label, value, so=False) for label, value in stated_facts(denied(said[-1]))]
        line = next((line for line in profile.splitlines() for fact in facts if denied_by(fact, line)), "")
        return Call(FORGET_FACT, {"what": line}) if line else None
    return None


def another(items: Sequence[Item], said: list[str]) -> Call | None:
    """The next request to forget in what was said, after the answers to those before it."""
    answered = list(takewhile(lambda item: isinstance(item, llm.FunctionCallOutput), reversed(items)))
    if not said or any(role_of(item) != "tool" or not _forgot(item) for item in answered):
        return None
    rest = said[-1]
    for _ in answered:
        request = forget_request(rest)
        rest = request.rest if request is not None else ""
    request = forget_request(rest)
    return Call(FORGET_FACT, {"what": request.what}) if request is not None and request.scope == "thing" else None


def _forgot(item: Item) -> bool:
    return (
        isinstance(item, llm.FunctionCallOutput)
        and item.name == FORGET_FACT
        and not fields_of(item.output).get("candidates")
    )


_ORDER: Final = ("first", "second", "third", "fourth", "fifth")


def chosen(items: Sequence[Item], tools: set[str]) -> str | Call | None:
    """What follows from an answer to a question of a forgetting tool, straight after the question."""
    users = [index for index, item in enumerate(items) if role_of(item) == "user"]
    if len(users) < 2:
        return None
    asked = [item for item in items[users[-2] : users[-1]] if isinstance(item, llm.FunctionCallOutput)]
    if not asked or asked[-1].name not in tools:
        return None
    words, question = text_of(items[users[-1]]), fields_of(asked[-1].output)
    if question.get("needs_confirmation") and asked[-1].name == FORGET_EVERYTHING:
        request = forget_request(words)
        again = request is not None and request.scope == "everything"
        sure = again or (pattern("<sure>").search(words) and not pattern("<unsure>").search(words))
        if sure:
            return Call(FORGET_EVERYTHING, {"confirm": True})
        return _KEPT if pattern("<kept>").search(words) else None
    candidates = [str(one) for one in question.get("candidates") or []]
    if candidates and pattern("<refused>").search(words):
        return _KEPT if pattern("<kept>").search(words) else None
    other = command(words)
    if stated_facts(words) or (other is not None and other.tool != FORGET_FACT):
        return None  # something else: "I like tea" does not choose "Likes: tea"
    if candidates and re.search(r"\b(?:both|all|everything)\b", words, re.IGNORECASE):
        return Call(asked[-1].name, {"what": " and ".join(candidates)})
    if len(candidates) == 1 and pattern("<sure>").search(words):
        return Call(asked[-1].name, {"what": candidates[0]})
    for number, name in enumerate(_ORDER[: len(candidates)]):
        if re.search(rf"\b{name}\b", words, re.IGNORECASE):
            return Call(asked[-1].name, {"what": candidates[number]})
    named = set(re.findall(r"\w+", words.lower()))
    scores = [len(named & set(re.findall(r"\w+", one.lower()))) for one in candidates]
    if any(scores) and scores.count(max(scores)) == 1:
        return Call(asked[-1].name, {"what": candidates[scores.index(max(scores))]})
    return None
