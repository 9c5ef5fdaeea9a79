"""The turns of a conversation, as a model is given them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

from livekit.agents import llm

from .intent import command
from .statements import expanded, facts_in
from .tables import pattern, talk

Item: TypeAlias = llm.ChatMessage | llm.FunctionCallOutput


def text_of(item: Item) -> str:
    """The words of a message, or the output of a tool."""
    return (item.text_content or "") if isinstance(item, llm.ChatMessage) else item.output


def role_of(item: Item) -> str:
    """``user``, ``assistant``, ``system`` or ``tool``."""
    return item.role if isinstance(item, llm.ChatMessage) else "tool"


def said_in(items: Sequence[Item]) -> list[str]:
    """What the user has said; the last two turns as sentences that need no other turn to be understood."""
    turns = [
        (text_of(item), before is not None and role_of(before) == "assistant" and "your name?" in text_of(before))
        for before, item in pairwise([None, *items])
        if item is not None and role_of(item) == "user"
    ]
    said = [words for words, _ in turns[:-2]]
    for words, name_asked in turns[-2:]:
        said.append(_in_full(words, said[-1] if said else "", name_asked))
    return said


def _in_full(words: str, before: str, name_asked: bool) -> str:
    """The words in full: "My name is Ada" for "Ada", "I have a dog called Rex" for "its name is Rex"."""
    if name_asked and not (command(words) or small_talk(words)):
        name = pattern("<name_alone>").match(expanded(words))
        return f"My name is {name[1]}" if name else words
    found = pattern("<its_name>").match(expanded(words))
    had = [fact.value for fact in facts_in(before) if fact.label in ("Family", "Pets")] if found else []
    return f"I have {had[-1]} called {found[1]}" if found and had and " called " not in had[-1] else words


def small_talk(words: str) -> str:
    """The answer to small talk; empty if the words are none."""
    return next((answer for said, answer in talk() if said.match(bare(words))), "")


def bare(words: str) -> str:
    """The words in lower case, without punctuation and contractions."""
    return re.sub(r"[^\w\s']", "", expanded(words).lower()).strip()
