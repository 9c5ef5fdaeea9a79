"""Summarises a whole conversation with the model: in one request, or in parts whose notes are combined."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from livekit.agents import llm

from cache import retrieve_exception

from ..material import block, quoted_line
from ..prompts import COMBINED_SUMMARY_PROMPT, SUMMARY_PROMPT
from ..store import Turn
from ..transcript import to_bring_up, transcript_lines
from ..voice.model_query import ask

logger = logging.getLogger("companion")
MAX_SUMMARY: Final = 600
"""Characters of a summary that are kept."""
MAX_TURN: Final = 2000
"""Characters of a turn that are summarised; fewer where the conversation would have more than ``MAX_PARTS`` parts."""
PART: Final = 24_000
"""Characters of a transcript in one request, beside one turn. About 8,000 tokens."""
MAX_PARTS: Final = 16
CONCURRENT: Final = 8
"""Parts that are summarised at a time."""
PARTS_TIMEOUT: Final = 3.0
"""Seconds for the notes on all parts: the end of a conversation has seven in all. Later ones are left out."""
COMBINE_TIMEOUT: Final = 2.0
"""Seconds for combining them. Without an answer, the notes themselves are the summary."""


async def summarise(turns: Sequence[Turn], model: llm.LLM[Any]) -> str:
    """The summary of ``turns``, all that may be brought up; empty if there are none, or the model answers nothing.

    Raises:
        Exception: what the model's client raises, if no part of the conversation could be summarised.
    """
    turns = to_bring_up(turns)
    if not any(turn.role == "user" for turn in turns):
        return ""
    fair = MAX_PARTS * PART // max(1, len(turns)) - len("assistant: ")
    parts = _parts(transcript_lines(turns, max_chars=min(MAX_TURN, max(fair, 20))))
    if len(parts) == 1:
        return _one_line(await ask(model, SUMMARY_PROMPT, parts[0]))
    notes = await _notes(parts, model)
    if not notes:
        return ""
    material = block("notes", "\n".join(map(quoted_line, notes)))
    try:
        async with asyncio.timeout(COMBINE_TIMEOUT):
            combined = _one_line(await ask(model, COMBINED_SUMMARY_PROMPT, material))
    except Exception as problem:  # whatever a model's client raises
        logger.warning("the notes on a conversation could not be combined (%s)", type(problem).__name__)
        combined = ""
    each = MAX_SUMMARY // len(notes) - 1
    return combined or " ".join(note[:each] for note in notes)


def _parts(lines: Sequence[str]) -> list[str]:
    parts: list[list[str]] = [[]]
    size = 0
    for line in lines:
        if size > PART:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += len(line)
    return ["\n".join(part) for part in parts]


async def _notes(parts: Sequence[str], model: llm.LLM[Any]) -> list[str]:
    """The notes on the parts that the model answers in time, in order."""
    free = asyncio.Semaphore(CONCURRENT)

    async def note(part: str) -> str:
        async with free:
            return _one_line(await ask(model, SUMMARY_PROMPT, part))

    tasks = [asyncio.create_task(note(part), name="summarise-part") for part in parts]
    try:
        await asyncio.wait(tasks, timeout=PARTS_TIMEOUT)
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
            task.add_done_callback(retrieve_exception)
    done = [task for task in tasks if task.done() and not task.cancelled()]
    if done and all(task.exception() for task in done):
        await done[0]  # raises
    answered = [task.result() for task in done if task.exception() is None]
    if len(answered) < len(parts):
        logger.warning(
            "%d of %d parts of a conversation are not in its summary", len(parts) - len(answered), len(parts)
        )
    return [note for note in answered if note]


def _one_line(answer: str) -> str:
    return " ".join(answer.split())[:MAX_SUMMARY]
