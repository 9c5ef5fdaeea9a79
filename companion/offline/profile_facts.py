"""Facts as the lines of a profile: "Likes: chess"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from .statements import Fact, expanded, facts_in
from .tables import labels, pattern

_COMMON: Final = {"called", "is", "in", "and", "as", "at", "to", "for", "i", "you", "doe", "ha"}
"""Stems of words by which no question means a value."""


def line_of(fact: Fact) -> str:
    """The fact as a line of a profile."""
    return f"{fact.label}: {fact.value}"


def clauses(facts: Sequence[Fact]) -> str:
    """The facts in a sentence: "you like tea and you live in Rome"."""
    said = [labels()[fact.label].clause.format(fact.value) for fact in facts]
    return re.sub(r"\b(?:my|our)\b", "your", " and ".join(said))


def answer_from(question: str, lines: Sequence[str]) -> str | None:
    """What a profile answers to a question of the person; empty if it does not know, None if it is no such question."""
    asked = expanded(question).lower()
    if pattern("<question>").match(asked) is None:
        return None
    if whether := pattern("<whether>").match(asked):
        verb, who, rest = whether.groups()
        facts = facts_in(f"{who} {rest}" if verb == "do" else f"{who} {verb} {rest}")
        if facts and all(known(fact, lines) for fact in facts):
            return f"Yes, {clauses(facts)}."
        otherwise = [other for fact in facts for other in _instead_of(fact, lines)]
        return f"No, {clauses(otherwise)}." if otherwise else "" if facts else None
    answer = None
    for name, label in labels().items():
        if not answer and pattern(label.asked).search(asked):
            facts = _of(name, lines)
            # Of another person, a line answers only what it is about.
            mentioned = [fact for fact in facts if len(_stems(fact.value) & _stems(asked)) > (label.clause == "{}")]
            answer = clauses(mentioned or [fact for fact in facts if label.clause != "{}"])
    return f"{answer[:1].upper()}{answer[1:]}." if answer else answer


def mentioning(words: str, lines: Sequence[str]) -> list[Fact]:
    """The facts of a profile that share a word with a search for facts."""
    facts = [fact for name in labels() for fact in _of(name, lines)]
    return [fact for fact in facts if _stems(fact.value) & _stems(words)]


def known(fact: Fact, lines: Sequence[str]) -> bool:
    """Whether lines of a profile say the fact already, in whatever case, punctuation and order."""
    values = [value for label, value in map(_split, lines) if label == fact.label.lower()]
    if labels()[fact.label].longer and any(_words(fact.value) <= _words(value) for value in values):
        return True
    same = any(re.findall(r"\w+", _plain(line)) == re.findall(r"\w+", _plain(line_of(fact))) for line in lines)
    return same or _items(fact.value) <= set().union(*map(_items, values))


def denied_by(fact: Fact, line: str) -> bool:
    """Whether a line says what, by the fact, is not so."""
    label, value = _split(line)
    return not fact.so and label == fact.label.lower() and _items(value) <= _items(fact.value)


def replaced_by(fact: Fact, line: str) -> bool:
    """Whether a line is not true, or says less, once the fact is known."""
    label, value = _split(line)
    of = labels()[fact.label]
    if label != (fact.label.lower() if fact.so else ""):
        return label in (fact.label.lower(), of.opposite.lower()) and _items(value) <= _items(fact.value)
    slots = [pattern(of.slot).match(_plain(text)) for text in (value, fact.value)] if of.slot is not None else [None]
    if all(slots) and len({found.group(found.lastindex or 0) for found in slots if found}) == 1:
        return True
    return _items(value) <= _items(fact.value) or (of.longer and _words(value) <= _words(fact.value))


def corrected(said: str, lines: list[str], before: Sequence[Fact]) -> list[str]:
    """The lines after "it is Bergen, not Oslo", or "no, Bergen" where the last of the facts ``before`` has Oslo."""
    found = pattern("<right_not_wrong>").match(said) or pattern("<not_wrong_but_right>").match(said)
    if found is None:
        return lines
    right, wrong = str(found["right"]), found["wrong"]
    if wrong is None and before:
        wrong = re.split(" called | is ", before[-1].value)[-1]

    def replace(old: re.Match[str]) -> str:
        return right.title() if old.group().istitle() and right.islower() else right

    return [pattern(rf"\b{re.escape(wrong)}\b").sub(replace, line) for line in lines] if wrong else lines


def _of(name: str, lines: Sequence[str]) -> list[Fact]:
    return [Fact(name, value) for label, value in map(_split, lines) if label == name.lower()]


def _instead_of(fact: Fact, lines: Sequence[str]) -> list[Fact]:
    """What a profile says otherwise: the opposite, or the one value that there can be."""
    label = labels()[fact.label]
    opposite = Fact(label.opposite, fact.value) if label.opposite else None
    if opposite is not None and known(opposite, lines):
        return [opposite]
    return _of(fact.label, lines) if label.slot == "" else []


def _split(line: str) -> tuple[str, str]:
    label, _, value = line.partition(":")
    return label.strip().lower(), value.strip()


def _items(value: str) -> set[str]:
    """What a value lists, without what may be left out."""
    parts = (part.strip().rstrip("s") for part in re.split(r",? and |, |/", _plain(value)))
    return {re.sub(r"^(?:(?:the|an?|some|all|my|to|playing|really|of) )*", "", part) for part in parts}


def _words(value: str) -> set[str]:
    return set(re.findall(r"\w+", _plain(value))) - {"a", "an", "the", "my", "our", "one"}


def _stems(text: str) -> set[str]:
    return {word.rstrip("s") for word in _words(text)} - _COMMON


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[^.!?;'’\"]+", text.casefold())).replace("color", "colour")
