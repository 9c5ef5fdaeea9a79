"""Decides how to open a conversation: as a first meeting, a follow-up, or a fresh start.

The cache holds the decision (``user:{id}:greeting_instructions``, two minutes), never its wording: the instructions are
rendered from it and from ``base_instructions`` each time, so a deploy that changes a prompt never serves old text.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from cache import LoadTimeout, get_redis_cache, keys

from .. import prompts
from ..caching import profile_to_read
from ..relative_time import age_of, ago
from ..runtime import get_runtime
from ..store import StoreError
from ..transcript import to_bring_up
from .follow_up import MAX_TOPIC, decide_follow_up

logger = logging.getLogger("companion")
FRESH_AFTER: Final = timedelta(hours=72)
"""Since the last turn; after it the last conversation is not picked up."""
DROPPED_WITHIN: Final = timedelta(minutes=2)
"""Since the last turn; within it the conversation counts as cut off, and the greeting goes on with it."""

Opening = Literal["first_meeting", "follow_up", "fresh_start"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to open.

    Attributes:
        opening: the kind of greeting.
        last_seen: time of the last turn, ISO 8601; empty at a first meeting.
        topic: the thread to pick up, for a follow-up.
        last_words: the last thing the caller said.
    """

    opening: Opening
    last_seen: str = ""
    topic: str = ""
    last_words: str = ""

    @classmethod
    def from_cache(cls, value: Any) -> Plan | None:
        """The plan in a cached value; None for anything else, such as a plan that another version wrote."""
        try:
            plan = cls(**value)
            if plan.last_seen and datetime.fromisoformat(plan.last_seen).tzinfo is None:
                return None
        except (TypeError, ValueError):
            return None
        texts = isinstance(plan.topic, str) and isinstance(plan.last_words, str)
        return plan if texts and plan.opening in ("first_meeting", "follow_up", "fresh_start") else None

    def instructions(self, base_instructions: str) -> str:
        """The instructions for the first message: ``base_instructions``, then how to open."""
        opening = self._opening_instructions()
        return f"{base_instructions.rstrip()}\n\n{opening}" if base_instructions.strip() else opening

    def _opening_instructions(self) -> str:
        if self.opening == "first_meeting":
            return prompts.FIRST_MEETING
        if self._dropped():
            return prompts.after_dropped_call(self._ago(), self.last_words)
        if self.opening == "follow_up":
            return prompts.follow_up(self._ago(), self.topic)
        return prompts.fresh_start(self._ago())

    def _dropped(self) -> bool:
        age = age_of(datetime.fromisoformat(self.last_seen)) if self.last_seen else None
        return age is not None and age < DROPPED_WITHIN

    def _ago(self) -> str:
        return ago(datetime.fromisoformat(self.last_seen)) if self.last_seen else "a while ago"


FIRST_MEETING: Final = Plan("first_meeting")


async def get_intelligent_first_message_instructions(user_id: str, base_instructions: str) -> str:
    """The instructions for the first message to this user.

    Args:
        user_id: the user whose last conversation decides.
        base_instructions: what holds for every greeting; never cached.

    Returns:
        ``base_instructions`` followed by how to open. While the store is away and nothing is cached, a first meeting.

    Raises:
        cache.keys.InvalidKeyPart: ``user_id`` could match more than one user's keys.
    """
    key = keys.greeting_instructions(user_id)

    async def load() -> dict[str, str]:
        plan, cacheable = await make_plan(user_id)
        if not cacheable:
            raise _NotCacheable(plan)
        return asdict(plan)

    cache = await get_redis_cache()
    try:
        found = await cache.get_or_load(key, load, ttl=key.ttl)
        plan = Plan.from_cache(found)
        if plan is None:
            await cache.delete(key)
            plan = (await make_plan(user_id))[0]
    except _NotCacheable as uncached:
        plan = uncached.plan
    except (StoreError, LoadTimeout) as problem:
        logger.warning("the last turns could not be read: %s", problem)
        plan = FIRST_MEETING
    return plan.instructions(base_instructions)


class _NotCacheable(Exception):
    """Carries a plan past the cache: the model gave no decision, so the next greeting must ask it again."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan


async def make_plan(user_id: str) -> tuple[Plan, bool]:
    """Decide how to open, from the store.

    Returns:
        The plan, and whether it may be cached.

    Raises:
        StoreError: the store failed.
    """
    runtime = get_runtime()
    context = await runtime.contexts.get(user_id)
    turns = context.turns
    if not turns:
        return FIRST_MEETING, True
    last_seen = turns[-1].at
    said = [turn.text for turn in to_bring_up(turns) if turn.role == "user"]
    last_words = " ".join(said[-1].split())[:MAX_TOPIC] if said else ""
    age = age_of(last_seen)
    if not said or (age is not None and age > FRESH_AFTER):
        return Plan("fresh_start", last_seen.isoformat(), last_words=last_words), True
    summary = context.summary.text if context.summary else ""
    runtime.judging[user_id] += 1
    try:
        decision = await decide_follow_up(turns, profile_to_read(context.profile), runtime.model, summary=summary)
    finally:
        runtime.judging -= Counter([user_id])  # which forgets a user at zero
    opening: Opening = "follow_up" if decision.follow_up else "fresh_start"
    return Plan(opening, last_seen.isoformat(), decision.topic, last_words), decision.certain
