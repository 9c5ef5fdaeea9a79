"""A conversation in three sentences, written by the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from livekit.agents import llm

from ..prompts import SUMMARY_PROMPT
from ..store import Turn

MAX_SUMMARY: Final = 600
"""Characters of a summary that are kept."""
_TURNS: Final = 40


async def summarise(turns: Sequence[Turn], model: llm.LLM[Any]) -> str:
    """The note about ``turns``; empty if the model had nothing to say. Raises whatever the model's client raises."""
    question = llm.ChatContext.empty()
    question.add_message(role="system", content=SUMMARY_PROMPT)
    transcript = "\n".join(f"{turn.role}: {turn.text[:500]}" for turn in turns[-_TURNS:])
    question.add_message(role="user", content=transcript)
    async with model.chat(chat_ctx=question) as stream:
        return " ".join((await stream.collect()).text.split())[:MAX_SUMMARY]
