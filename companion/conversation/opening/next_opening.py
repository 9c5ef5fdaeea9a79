"""Prepares how the next conversation opens: the decision, the greeting's text for it, and the speech of the text.

It is done when a conversation has ended. What a job that was killed could not do is done by the next job that greets
with the same prompt: what is still to be written has a row in the store, from the caller's first turn on.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from cache import get_redis_cache, keys

from ...caching import profile_to_read
from ...prompts import PREPARED, earlier_conversations, remembered
from ...relative_time import age_of
from ...runtime import get_runtime
from ...store import Context, Opening, StoreError
from ...voice.model_query import first_message
from ...voice.prepared_speech import PreparedSpeech
from .greeting import decide, read_plan
from .plan import Kind, Plan
from .prompt import GreetingPrompt
from .time_words import may_be_kept

logger = logging.getLogger("companion")
MAX_TEXT: Final = 400
"""Characters of a greeting; a longer one is not kept."""
TEXT_TIMEOUT: Final = 3.0
"""Seconds that the model may take for the texts."""
LEFT_AFTER: Final = 300.0
"""Seconds without a turn after which a job that has not written its texts counts as killed."""
LEFT_LIMIT: Final = 3
"""The most persons for whom one job prepares what others have left."""


async def note_opening(user_id: str, prompt: GreetingPrompt) -> bool:
    """Note that the opening is to be prepared when this conversation ends. Raises nothing but ``CancelledError``.

    Returns:
        Whether it is noted: not while the store is away.
    """
    since = await get_runtime().write_behind.beginnings.number(user_id)
    try:
        await get_runtime().store.save_opening(user_id, Opening(0, {}, None, prompt.hash, datetime.now(UTC), since))
    except Exception as problem:  # whatever a store may raise, the conversation goes on
        reason = problem if isinstance(problem, StoreError) else type(problem).__name__
        logger.warning("that a greeting is to be prepared could not be noted: %s", reason)
        return False
    return True


async def prepare_opening(
    user_id: str, prompt: GreetingPrompt | None, speech: PreparedSpeech, *, since: int | None = None
) -> None:
    """Prepare how the next conversation opens, and fill the cache with it.

    Args:
        user_id: the person.
        prompt: what the greeting is written with; None where the program greets by itself: then only the decision is
            prepared.
        speech: keeps the speech of the texts.
        since: the erasures that are known; those of the current conversation where None.

    Raises:
        StoreError: the store failed.
    """
    runtime = get_runtime()
    if since is None:
        since = await runtime.write_behind.beginnings.number(user_id)
    context = await runtime.contexts.get(user_id)
    plan = Plan.of(context)
    if plan is None:
        plan, certain, _ = await decide(user_id, context)
        if not certain:
            return  # the next start asks the model again
    if not context.turns:
        return
    age = age_of(context.turns[-1].at)
    recent = age is None or age <= timedelta(days=runtime.settings.prepare_days)
    writer = prompt if recent else None
    texts: dict[str, str] | None = {} if writer is None else None
    now, hash_ = datetime.now(UTC), prompt.hash if prompt is not None else ""
    opening = Opening(context.version, plan.decision(), texts, hash_, now, since)
    await runtime.store.save_opening(user_id, opening)
    if writer is not None and (texts := await write_texts(plan, context, writer)) is not None:
        await runtime.store.save_opening(user_id, replace(opening, texts=texts))
    # A start in the meantime may have filled the cache, without the texts.
    await (await get_redis_cache()).delete(keys.greeting_instructions(user_id))
    await read_plan(user_id, ahead=True)
    for text in (texts or {}).values():
        await speech.prepare(user_id, text, partial(_is_prepared, user_id, text))


async def _is_prepared(user_id: str, text: str) -> bool:
    """Whether the store holds a text for the next opening: not after a change, a forgetting or an erasure."""
    plan = Plan.of(await get_runtime().store.context(user_id, turns=0))
    return plan is not None and text in plan.texts.values()


async def write_texts(plan: Plan, context: Context, prompt: GreetingPrompt) -> dict[str, str] | None:
    """The greetings for a plan, by the kind of opening: for a follow-up, one for a long absence too.

    Returns:
        None where the model did not answer, so that it may be asked again. A text that may not be kept is left out.
    """
    summary = context.summary.text if context.summary and prompt.earlier else ""
    profile = profile_to_read(context.profile) if prompt.profile else ""
    known = [remembered(profile, earlier_conversations(summary, 0, ""))] if prompt.profile or prompt.earlier else []
    kinds: list[Kind] = ["follow_up", "fresh_start"] if plan.opening == "follow_up" else ["fresh_start"]

    async def write(kind: Kind) -> str:
        how = f"{prompt.instructions.rstrip()}\n\n{plan.instructions_for(kind, '')}\n\n{PREPARED}".lstrip()
        return " ".join((await first_message(get_runtime().model, prompt.persona, *known, how)).split())

    try:
        async with asyncio.timeout(TEXT_TIMEOUT):
            written = await asyncio.gather(*map(write, kinds))
    except Exception as problem:  # whatever a model's client raises
        logger.warning("the next greeting could not be prepared (%s)", type(problem).__name__)
        return None
    return {
        kind: text
        for kind, text in zip(kinds, written, strict=True)
        if 0 < len(text) <= MAX_TEXT and may_be_kept(text, prompt.language)
    }


async def prepare_left_over(prompt: GreetingPrompt, speech: PreparedSpeech) -> None:
    """Prepare what jobs with this prompt have left that were killed, of a few persons; see ``LEFT_LIMIT``.

    Raises nothing but ``CancelledError``.
    """
    store = get_runtime().store
    try:
        since = await store.latest_erasure()  # before what the texts are made from is read
        left = await store.claim_openings(prompt.hash, older_than=LEFT_AFTER, limit=LEFT_LIMIT)
    except StoreError as problem:
        logger.warning("what killed jobs have left could not be read: %s", problem)
        return
    for user_id in left:
        try:
            await prepare_opening(user_id, prompt, speech, since=since)
        except StoreError as problem:
            logger.warning("what a killed job has left could not be prepared: %s", problem)
