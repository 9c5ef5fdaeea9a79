"""Decides between follow-up and fresh start: a model reads the last turns for a thread worth picking up.

The model has three seconds. No answer, a broken one or an unsure one means a fresh start: an agent that opens with the
wrong subject is worse than one that opens with none.
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

from ...prompts import FOLLOW_UP_PROMPT, follow_up_material
from ...relative_time import ago
from ...store import Turn
from ...transcript import to_bring_up, transcript
from ...voice.model_query import ask

logger = logging.getLogger("companion")
DEADLINE: Final = 3.0
"""Seconds the model may take."""
MIN_CONFIDENCE: Final = 0.6
"""Confidence below which an answer is a fresh start."""
MAX_TOPIC: Final = 160
"""Characters of a topic that are kept."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to pick up the last conversation.

    Attributes:
        follow_up: pick up ``topic``; else a fresh start.
        topic: the thread, for a follow-up.
        certain: the model answered. A fresh start for want of an answer must not be cached.
    """

    follow_up: bool
    topic: str = ""
    certain: bool = True


async def decide_follow_up(
    turns: Sequence[Turn], profile: str, model: llm.LLM[Any], *, summary: str = "", deadline: float = DEADLINE
) -> Decision:
    """Ask the model. Raises nothing but ``CancelledError``, and returns within ``deadline`` seconds.

    Args:
        turns: the caller's last turns, oldest first. Those that may not be brought up are left out.
        profile: the caller's profile; empty when nothing is known.
        model: the model that decides.
        summary: the latest summary; empty when there is none.
        deadline: seconds the model may take.
    """
    turns = to_bring_up(turns)
    if not any(turn.role == "user" for turn in turns):
        return Decision(False)
    material = follow_up_material(profile, summary, ago(turns[-1].at), transcript(turns, max_turns=8, max_chars=300))
    task = asyncio.create_task(ask(model, FOLLOW_UP_PROMPT, material), name="follow-up-decision")
    try:
        # Not asyncio.timeout: the deadline holds even if the model's client ignores cancellation.
        await asyncio.wait({task}, timeout=deadline)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(retrieve_exception)
    if not task.done():
        logger.warning("the model did not decide on a follow-up in time: fresh start")
        return Decision(False, certain=False)
    try:
        return parse_decision(task.result())
    except asyncio.CancelledError:
        return Decision(False, certain=False)
    except Exception as problem:  # whatever a model's client raises must not stop a greeting
        logger.warning("the model failed to decide on a follow-up (%s): fresh start", type(problem).__name__)
        return Decision(False, certain=False)


def parse_decision(answer: str) -> Decision:
    """The decision in a model's answer. Anything but clear JSON with enough confidence is a fresh start."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        fields: Any = json.loads(answer[start : end + 1])
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        logger.warning("the model's decision on a follow-up is not JSON: fresh start")
        return Decision(False, certain=False)
    confidence, topic = fields.get("confidence"), fields.get("topic")
    sure = isinstance(confidence, int | float) and not isinstance(confidence, bool) and confidence >= MIN_CONFIDENCE
    if fields.get("follow_up") is not True or not sure or not isinstance(topic, str) or not topic.strip():
        return Decision(False)
    return Decision(True, " ".join(topic.split())[:MAX_TOPIC])
