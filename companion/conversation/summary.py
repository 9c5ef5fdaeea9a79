"""Summarises a conversation with the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from livekit.agents import llm

from ..prompts import SUMMARY_PROMPT
from ..store import Turn
from .model_query import ask, transcript

MAX_SUMMARY: Final = 600
"""Characters of a summary that are kept."""


async def summarise(turns: Sequence[Turn], model: llm.LLM[Any]) -> str:
    """The summary of ``turns``; empty if the model answers nothing. Raises whatever the model's client raises."""
    answer = await ask(model, SUMMARY_PROMPT, transcript(turns, max_turns=40, max_chars=500))
    return " ".join(answer.split())[:MAX_SUMMARY]
