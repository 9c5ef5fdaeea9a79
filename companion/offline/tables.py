"""Reads the tables: ``facts.toml`` and ``talk.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """Words that state something; see ``facts.toml``."""

    words: str
    form: str = "{0}"


class Label(NamedTuple):
    """What is remembered under one label; see ``facts.toml``."""

    rules: tuple[Rule, ...]
    clause: str
    asked: str
    slot: str | None = None
    opposite: str = ""
    longer: bool = False
    proper: bool = False


@cache
def labels() -> dict[str, Label]:
    """The labels, in the order in which their rules are tried."""
    rules = {
        name: [Rule(*map(_joined, [rule] if isinstance(rule, str) else rule[::-1])) for rule in label["rules"]]
        for name, label in _table("facts")["labels"].items()
    }
    return {name: Label(**label | {"rules": tuple(rules[name])}) for name, label in _table("facts")["labels"].items()}


@cache
def talk() -> Sequence[tuple[re.Pattern[str], str]]:
    """What is said, and what is answered to it without a tool; see ``talk.toml``."""
    return [(pattern(_joined(said)), answer) for said, answer in _table("talk")["talk"]]


@cache
def commands() -> Sequence[tuple[re.Pattern[str], str, str]]:
    """Words that call a tool, the tool, and its argument; see ``talk.toml``."""
    return [(pattern(_joined(words)), tool, argument) for words, tool, argument in _table("talk")["commands"]]


@cache
def number(word: str) -> int:
    """The number that a word such as "thirty" means."""
    lists = {name: _table("facts")["lists"][name].split() for name in ("unit", "teen", "ten")}
    values = {word: value for value, word in enumerate(lists["unit"] + lists["teen"], 1)}
    return (values | {word: 10 * value for value, word in enumerate(lists["ten"], 2)})[word]


@cache
def contractions() -> Sequence[tuple[str, str]]:
    """What is written otherwise, and how the rules read it."""
    return [(written, read) for written, read in _table("facts")["reading"]["contractions"]]


@cache
def pattern(words: str) -> re.Pattern[str]:
    """An expression of the tables, in which ``<name>`` stands for an entry of theirs."""
    entries = _entries()
    while names := set(re.findall(r"<(\w+)>", words)) & entries.keys():
        for name in names:
            words = words.replace(f"<{name}>", entries[name])
    return re.compile(words, re.IGNORECASE)


@cache
def _entries() -> dict[str, str]:
    lists = {
        name: f"(?:{'|'.join(words.split())})".replace("_", " ") for name, words in _table("facts")["lists"].items()
    }
    words = _table("facts")["words"] | _table("talk")["words"]
    return lists | {name: _joined(expression) for name, expression in words.items()}


def _joined(words: str) -> str:
    return re.sub(r"(?:\A|\n) {2}", "", words)


@cache
def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(f"{name}.toml").read_text(encoding="utf-8"))
