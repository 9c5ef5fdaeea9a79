"""What a person's words state about the person, by the tables of ``facts.toml``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple

from ..forget_request import forget_request, plain
from .tables import contractions, labels, number, pattern

_MOST: Final = 40
"""Clauses that are looked at."""
_BIGGEST_AGE: Final = 120


class Fact(NamedTuple):
    """Something stated: it is so, or (``so`` is false) it is not."""

    label: str
    value: str
    so: bool = True


class _Match(NamedTuple):
    fact: Fact
    before: str
    """The words before the value: they count for "not Oslo" behind it as well."""
    rest: str


def stated_facts(said: str) -> list[tuple[str, str]]:
    """The facts that the words state about the person: ("Name", "Ada"), ("Likes", "chess")."""
    return [(fact.label, fact.value) for fact in facts_in(said) if fact.so]


def secret_in(said: str) -> bool:
    """Whether the words hold a password, a code or the number of a card."""
    return pattern("<secret>").search(unicodedata.normalize("NFKC", plain(said))) is not None


def facts_in(said: str) -> list[Fact]:
    """What the words state to be so, or not to be so, of the person.

    A question states nothing, and neither does what is supposed, quoted, said in jest, or to be forgotten.
    """
    while (request := forget_request(said)) is not None:
        said = request.rest
    return list(dict.fromkeys(filter(None, _read(said))))


def all_stated(said: str) -> bool:
    """Whether the words hold nothing but facts."""
    return all(_read(said))


def _read(said: str) -> Iterator[Fact | None]:
    """The facts in the words, and None for words that state none."""
    said = expanded(said)
    if pattern("<not_meant>").search(said):
        return
    for sentence in re.split(r"(?<=[.!?…])\s+", said):
        yield from _facts_of(_statement(sentence))


def expanded(said: str) -> str:
    """The words as the rules read them: contractions written out, without hesitation and what is quoted."""
    said = unicodedata.normalize("NFKC", plain(said))
    said = said.lower() if said.isupper() else said
    for written, read in contractions():
        said = pattern(written).sub(read, said)
    return " ".join(pattern("<quoted>").sub(_unquoted, said).split())


def _unquoted(found: re.Match[str]) -> str:
    words = found.group(1) or found.group(2) or ""
    return " " if re.search(r"\b(?:i|my|we)\b", words, re.IGNORECASE) else words


def _statement(sentence: str) -> str:
    """The sentence without the question that ends it; empty where all of it is asked."""
    tag = pattern("[,.]? <tag>").search(sentence)
    if not sentence.endswith("?"):
        return "" if tag and re.search(r"\bnot\b|right|huh|eh\b", tag.group()) else sentence
    asked = pattern("<question_at>").search(sentence)
    return sentence[: asked.start()] if asked and not tag else ""


def _facts_of(sentence: str) -> Iterator[Fact | None]:
    rest, last = sentence, None
    for _ in range(_MOST):
        begun, rest = rest, pattern("<lead>").sub("", rest, count=1)
        if found := _match(rest, last) or (_match(begun.strip(), last) if begun != rest else None):
            last, rest = found, found.rest
            about = pattern("<its_secret>").match(rest)
            if not secret_in(f"{found.fact.label} {found.fact.value} {about.group() if about else ''}"):
                yield found.fact
            continue
        if rest:
            yield None
        last, end = None, pattern("<boundary>").search(rest)
        if end is None:
            return
        framed, boundary = pattern("<frame>").search(rest[: end.start()]), end.group().lower()
        rest = rest[end.end() :]
        if framed and not boundary.startswith("but"):
            rest = pattern(r".*?\bbut\b|.*").sub("", rest, count=1)


def _match(rest: str, last: _Match | None) -> _Match | None:
    """The first rule that fits where ``rest`` begins, also where it goes on from ``last`` ("and work as a nurse")."""
    readings = [(rest, True)]
    if last is not None and rest.lower().startswith("not "):
        return _rule(last.before + rest[4:], so=False)
    own = pattern(r"<subject>\b").match(rest)  # "..., well, I was a nurse" needs no words of the clause before it
    if last is not None and not own and pattern(r"(?:my|our) (?:<relative>|<pet>)\b").match(last.before) is None:
        readings += [(f"{start} {rest}", True) for start in ("i", "i am", "i am a", "i have")]
    if last is not None and not last.fact.so:
        readings.append((last.before + pattern(r"(?:it is|its|rather|in) ").sub("", rest, count=1), True))
    if negated := pattern("<negation>").match(rest):
        readings.append((negated.group(1) + rest[negated.end() :], False))
    return next(filter(None, (_rule(text, so=so, elided=text != rest) for text, so in readings)), None)


def _rule(text: str, *, so: bool, elided: bool = False) -> _Match | None:
    for name, label in labels().items():
        for rule in label.rules:
            found = pattern(rule.words).match(text)
            if found is None or (elided and so and name == "Name" and text.startswith("i am ")):
                continue
            if value := _value(name, rule.form.format(*found.groups())):
                return _Match(Fact(name, value, so), text[: found.start(found.lastindex or 0)], text[found.end() :])
    return None


def _value(name: str, words: str) -> str:
    """The words as they are stored; empty if they cannot be meant."""
    value = re.sub(r"\ba (?=[aeiou])", "an ", words.strip(" ,.;:!?'\"…-"))
    if name == "Age":
        years = int(value) if value.isdecimal() else sum(map(number, re.split("[ -]", value.lower())))
        return str(years) if 0 < years <= _BIGGEST_AGE else ""
    if name == "Plans":  # "On Friday I ..." is stored with its day at the end
        return pattern(r" (?:on|in|by|next|this|tomorrow|tonight)\b").sub(lambda day: day.group().lower(), value)
    label = labels()[name]
    if label.longer:
        what, called, names = value.partition(" called ")
        one = pattern(r"an? (?=\w+(?<!s)s$|children$)").sub("", what) if called else what
        return one + called + pattern(r"\b(?!and\b)[^\W\d_]").sub(lambda first: first.group().upper(), names)
    small = value.islower() or (value[:1].islower() and " " not in value)
    if label.proper and small and not re.match("(?:the|an?|near|outside|just) ", value):
        return value.title()
    return value[:1].upper() + value[1:] if name == "Name" else value
