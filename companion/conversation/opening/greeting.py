"""Decides how to open a conversation: as a first meeting, a follow-up, or a fresh start.

The decision is made when the last conversation has ended, and is kept in the store with the version of what it was made
from (``Opening``); it holds until anything of the person changes. The cache holds a copy for two minutes
(``user:{id}:greeting_instructions``), which each change invalidates. What the clock decides, and the wording, are in
neither (``plan``).
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from cache import LoadTimeout, get_redis_cache, keys

from ...caching import profile_to_read
from ...identity import current_caller
from ...phrases import is_farewell, is_goodbye
from ...relative_time import age_of
from ...runtime import get_runtime
from ...store import Context, Opening, StoreError
from ...transcript import to_bring_up
from .follow_up import MAX_TOPIC, decide_follow_up
from .plan import FIRST_MEETING, FRESH_AFTER, Kind, Plan

logger = logging.getLogger("companion")


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
    return (await read_plan(user_id)).instructions(base_instructions)


async def read_plan(user_id: str, *, ahead: bool = False) -> Plan:
    """How to open with a user: as it was decided for the present version of what is known of them, else decided now.

    Args:
        user_id: the user.
        ahead: whether this prepares the next start, and is no lookup.

    Returns:
        The plan, with the greetings that are prepared. While the store is away and nothing is cached, a first meeting.

    Raises:
        cache.keys.InvalidKeyPart: ``user_id`` could match more than one user's keys.
    """
    key, reading = keys.greeting_instructions(user_id), get_runtime().reading_plans
    # Another start of this person, in this process, whose load this one may join: it may have begun before a change
    # that was acknowledged before this start, if another process made the change.
    older, led = reading[user_id] > 0, False

    async def load() -> dict[str, Any]:
        nonlocal led
        led = True
        plan, cacheable = await make_plan(user_id)
        if not cacheable:
            raise _NotCacheable(plan)
        return asdict(plan)

    cache = await get_redis_cache()
    reading[user_id] += 1
    try:
        found = await (cache.warm if ahead else cache.get_or_load)(key, load, key.ttl)
        plan = Plan.from_cache(found)
        if plan is None:
            await cache.delete(key)
        if plan is None or (older and not led):
            plan = (await make_plan(user_id))[0]
    except _NotCacheable as uncached:
        plan = uncached.plan
    except (StoreError, LoadTimeout) as problem:
        logger.warning("the last turns could not be read: %s", problem)
        plan = FIRST_MEETING
    finally:
        reading.subtract([user_id])
        if not reading[user_id]:
            del reading[user_id]
    return plan


class _NotCacheable(Exception):
    """Carries a plan past the cache: the model gave no decision, so the next greeting must ask it again."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan


async def make_plan(user_id: str) -> tuple[Plan, bool]:
    """The plan that the store holds, if it is still right; else decide, and let the store hold that.

    Returns:
        The plan, and whether it may be cached.

    Raises:
        StoreError: the store failed.
    """
    context = await get_runtime().contexts.get(user_id)
    if (plan := Plan.of(context)) is not None:
        return plan, True
    plan, certain, judged = await decide(user_id, context)
    if judged and certain:
        get_runtime().in_background(_keep(user_id, context, plan), name="opening-keep")
    return plan, certain


async def decide(user_id: str, context: Context) -> tuple[Plan, bool, bool]:
    """Decide how to open, from a context.

    Returns:
        The plan; whether it is certain; and whether a model was asked.
    """
    runtime, turns = get_runtime(), context.turns
    if not turns:
        return FIRST_MEETING, True, False
    last_seen = turns[-1].at
    last = next((turn for turn in reversed(turns) if turn.role == "user"), None)
    goodbye = (last is not None and is_farewell(last.text)) or (
        turns[-1].role == "assistant" and is_goodbye(turns[-1].text)
    )
    said = [turn for turn in to_bring_up(turns) if turn.role == "user"]
    # Where the last may not be brought up, none was the last: after a dropped call a caller would hear an earlier one.
    last_words = " ".join(last.text.split())[:MAX_TOPIC] if said and said[-1] is last else ""
    age = age_of(last_seen)
    if not said or (age is not None and age > FRESH_AFTER):
        return Plan("fresh_start", last_seen.isoformat(), last_words=last_words, goodbye=goodbye), True, False
    summary = context.summary.text if context.summary else ""
    runtime.judging[user_id] += 1
    try:
        decision = await decide_follow_up(turns, profile_to_read(context.profile), runtime.model, summary=summary)
    finally:
        runtime.judging -= Counter([user_id])  # which forgets a user at zero
    opening: Kind = "follow_up" if decision.follow_up else "fresh_start"
    plan = Plan(opening, last_seen.isoformat(), decision.topic, last_words, goodbye=goodbye)
    return plan, decision.certain, True


async def _keep(user_id: str, context: Context, plan: Plan) -> None:
    """Store what was decided at a start, so that the next one finds it. What prepares greetings stays as it was."""
    caller, runtime = current_caller(), get_runtime()
    if caller is None or caller.user_id != user_id:
        return  # when it began is not known, so neither is whether the person was erased meanwhile
    prompt = context.opening.prompt if context.opening is not None else ""
    since = await runtime.write_behind.beginnings.number(user_id)
    try:
        await runtime.store.save_opening(
            user_id, Opening(context.version, plan.decision(), {}, prompt, datetime.now(UTC), since)
        )
    except StoreError as problem:
        logger.warning("how to open could not be stored: %s", problem)
