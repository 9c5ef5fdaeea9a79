"""Ends a conversation: flushes its turns, summarises it, and prepares the next greeting.

No answer waits for this. It is bounded to a few seconds; what is not done by then is skipped, and the next
conversation begins without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from ..identity import Caller, use_caller
from ..memory.context import prepare_context_async
from ..runtime import get_runtime
from ..store import StoreError, Summary, Turn
from ..voice.prepared_speech import NoSpeech
from ..writes import ConversationEnded
from .opening.preparation import Preparation
from .summary import summarise
from .turn_log import TurnLog

logger = logging.getLogger("companion")
TIMEOUT: Final = 7.0
"""Seconds for all of it. The framework gives a job ten to shut down, and connections must be closed in them too."""
_CANCEL_TIMEOUT: Final = 1.0


async def end_conversation(log: TurnLog, preparation: Preparation | None = None) -> None:
    """Flush the turns of ``log``, then wrap up, within ``TIMEOUT`` seconds."""
    deadline = asyncio.get_running_loop().time() + TIMEOUT
    # Turns that could not be stored mean that the store is away: then a summary could not be stored either.
    if await log.close() == 0:
        remaining = deadline - asyncio.get_running_loop().time()
        await wrap_up(
            log.caller, log.conversation_id, log.turns, timeout=remaining - _CANCEL_TIMEOUT, preparation=preparation
        )


async def wrap_up(
    caller: Caller | None,
    conversation_id: str,
    turns: Sequence[Turn],
    *,
    timeout: float = TIMEOUT - _CANCEL_TIMEOUT,
    preparation: Preparation | None = None,
) -> None:
    """Summarise, count the conversation, and fill the cache for the next one.

    Raises nothing but ``CancelledError``, and returns at most ``_CANCEL_TIMEOUT`` after ``timeout``. Does nothing for
    an unknown caller, or for a conversation in which the caller said nothing.

    Args:
        caller: whose conversation it was.
        conversation_id: names the conversation.
        turns: what was said, oldest first.
        timeout: seconds until the rest is cancelled.
        preparation: prepares the next opening; None prepares the decision alone.
    """
    if caller is None or not any(turn.role == "user" for turn in turns):
        return
    with use_caller(caller):
        work = _wrap_up(caller, conversation_id, turns, preparation or Preparation(NoSpeech()))
        task = asyncio.create_task(work, name="wrap-up")
    try:
        await asyncio.wait({task}, timeout=timeout)
    finally:
        task.cancel()  # also where the wait itself is cancelled: the runtime is closed then
    if not task.done():
        await asyncio.wait({task}, timeout=_CANCEL_TIMEOUT)
        logger.warning("wrapping up timed out: the next greeting is prepared on demand")
    elif not task.cancelled() and (problem := task.exception()) is not None:
        logger.warning("wrapping up failed (%s)", type(problem).__name__)


async def _wrap_up(caller: Caller, conversation_id: str, turns: Sequence[Turn], preparation: Preparation) -> None:
    ended = ConversationEnded(conversation_id, datetime.now(UTC), language=caller.language)
    await asyncio.gather(
        _store_summary(caller, conversation_id, turns), get_runtime().write_behind.write(caller.user_id, ended)
    )
    # What is stored by now fills the cache for the next conversation.
    await asyncio.gather(preparation.prepare(caller.user_id), prepare_context_async())


async def _store_summary(caller: Caller, conversation_id: str, turns: Sequence[Turn]) -> None:
    known = 0
    try:
        known = (await get_runtime().store.forgotten(caller.user_id)).number
        stored = await get_runtime().store.context(caller.user_id, len(turns))
        # Another conversation may have been asked to forget what was said in this one.
        forgotten = {turn.id for turn in stored.turns if turn.skipped}
        turns = [turn for turn in turns if turn.id not in forgotten]
    except StoreError as problem:  # a summary is dropped then if it mentions anything forgotten
        logger.warning("the marks of a conversation's turns could not be read: %s", problem)
    try:
        text = await summarise(turns, get_runtime().model)
    except Exception as problem:  # whatever a model's client raises
        logger.warning("the conversation could not be summarised (%s)", type(problem).__name__)
        return
    if text:  # unless it mentions what was forgotten since, while the model answered
        summary = Summary(conversation_id, text, datetime.now(UTC), knows=known)
        await get_runtime().write_behind.write(caller.user_id, summary)
