"""The turns of a conversation, as a model is given them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TypeAlias

from livekit.agents import llm

from .intent import command
from .statements import expanded
from .tables import pattern, talk

Item: TypeAlias = llm.ChatMessage | llm.FunctionCallOutput
_NAME_ALONE: Final = r"\W*(?:(?:<lead_in>|it is|i am|i'm|im|me is)\W+)*<name>\W*$"


def text_of(item: Item) -> str:
    return (item.text_content or "") if isinstance(item, llm.ChatMessage) else item.output


def said_in(items: Sequence[Item]) -> list[str]:
    """What the user has said; a name alone, in answer to the question for it, as a sentence."""
    said: list[str] = []
    asked = False
    for item in items:
        if role_of(item) == "user":
            words = text_of(item)
            name = pattern(_NAME_ALONE).match(words) if asked and not command(words) and not small_talk(words) else None
            said.append(f"My name is {name.group(1)}" if name else words)
        asked = role_of(item) == "assistant" and "your name?" in text_of(item)
    return said


def role_of(item: Item) -> str:
    return item.role if isinstance(item, llm.ChatMessage) else "tool"


def small_talk(words: str) -> str:
    return next((reply for said, reply in talk() if said.match(bare(words))), "")


def bare(words: str) -> str:
    return re.sub(r"[^\w\s']", "", expanded(words).lower()).strip()
