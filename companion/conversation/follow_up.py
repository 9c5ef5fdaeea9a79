"""Follow-up or fresh start? A model reads the last turns and says whether to pick the thread up again.

It has three seconds. Slow, broken or unsure means a fresh start: an agent that opens with the wrong subject is
worse than one that opens with none.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from livekit.agents import llm

from cache import retrieve_exception

from ..prompts import FOLLOW_UP_PROMPT, follow_up_material
from ..store import Turn
from .relative_time import ago

logger = logging.getLogger("companion")
DEADLINE: Final = 3.0
"""Seconds the model may take."""
SURE: Final = 0.6
"""Confidence below which the answer counts as unsure."""
MAX_TOPIC: Final = 160
"""Characters of a topic that are kept."""
_TURNS: Final = 8


@dataclass(frozen=True, slots=True)
class Continuity:
    """How to open.

    Attributes:
        follow_up: pick the thread up again; else a fresh start.
        topic: the thread, where there is one.
        certain: the model answered. A fresh start for want of an answer is not worth keeping.
    """

    follow_up: bool
    topic: str = ""
    certain: bool = True


async def judge(
    turns: Sequence[Turn], profile: str, model: llm.LLM[Any], *, summary: str = "", deadline: float = DEADLINE
) -> Continuity:
    """Ask the model. Never raises but for cancellation, never takes longer than ``deadline`` seconds."""
    transcript = "\n".join(f"{turn.role}: {turn.text[:300]}" for turn in turns[-_TURNS:])
    question = llm.ChatContext.empty()
    question.add_message(role="system", content=FOLLOW_UP_PROMPT)
    material = follow_up_material(profile, summary, ago(turns[-1].at), transcript)
    question.add_message(role="user", content=material)
    task = asyncio.create_task(_ask(model, question), name="continuity")
    try:
        # Not asyncio.timeout: the caller goes on at the deadline even if the model's client ignores cancellation.
        await asyncio.wait({task}, timeout=deadline)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(retrieve_exception)
    if not task.done():
        logger.warning("the continuity model took too long: fresh start")
        return Continuity(False, certain=False)
    try:
        return read(task.result())
    except asyncio.CancelledError:
        return Continuity(False, certain=False)
    except Exception as problem:  # whatever a model's client raises must not stop a greeting
        logger.warning("the continuity model failed (%s): fresh start", type(problem).__name__)
        return Continuity(False, certain=False)


async def _ask(model: llm.LLM[Any], question: llm.ChatContext) -> str:
    stream = model.chat(chat_ctx=question)
    async with stream:
        return (await stream.collect()).text


def read(answer: str) -> Continuity:
    """What a model's answer says. Anything but clear JSON with confidence is a fresh start."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        said: Any = json.loads(answer[start : end + 1])
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        logger.warning("the continuity model did not answer in JSON: fresh start")
        return Continuity(False, certain=False)
    confidence, topic = said.get("confidence"), said.get("topic")
    sure = isinstance(confidence, int | float) and not isinstance(confidence, bool) and confidence >= SURE
    if said.get("follow_up") is not True or not sure or not isinstance(topic, str) or not topic.strip():
        return Continuity(False)
    return Continuity(True, " ".join(topic.split())[:MAX_TOPIC])
