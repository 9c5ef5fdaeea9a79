"""What happens after goodbye: the conversation is summed up, and the next greeting is prepared.

None of it is on the way of an answer. It has a few seconds, and whatever is not done by then is left out: the next
conversation begins without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from ..identity import Caller, use_caller
from ..memory.context import get_conversation_summary_async, get_user_state_async
from ..memory.profile import get_user_profile_async
from ..runtime import get_runtime
from ..store import Summary, Turn
from ..writes.relationship import ConversationEnded
from .greeting import get_intelligent_first_message_instructions
from .summary import summarise
from .turn_log import TurnLog

logger = logging.getLogger("companion")
GOODBYE: Final = 7.0
"""Seconds for all of it; the framework gives a job ten to shut down, and connections are to be closed as well."""
_CANCELLING: Final = 1.0


async def say_goodbye(turns: TurnLog | None) -> None:
    """All that is to be done when a conversation has ended, within ``GOODBYE`` seconds."""
    if turns is None:
        return
    ends = asyncio.get_running_loop().time() + GOODBYE
    # Where not everything could be stored, the store is away: there is nothing to sum up into, and no time to lose.
    if await turns.end() == 0:
        left = ends - asyncio.get_running_loop().time()
        await wrap_up(turns.caller, turns.conversation_id, turns.turns, timeout=left - _CANCELLING)


async def wrap_up(
    caller: Caller | None, conversation_id: str, turns: Sequence[Turn], *, timeout: float = GOODBYE - _CANCELLING
) -> None:
    """Sum up and prepare. Never raises but for cancellation, never takes much longer than ``timeout`` seconds."""
    if caller is None or not any(turn.role == "user" for turn in turns):
        return
    with use_caller(caller):
        task = asyncio.create_task(_wrap_up(caller, conversation_id, turns), name="wrap-up")
    await asyncio.wait({task}, timeout=timeout)
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCELLING)
        logger.warning("summing up took too long: the next greeting is made when it is needed")
    elif not task.cancelled() and (problem := task.exception()) is not None:
        logger.warning("summing up failed (%s)", type(problem).__name__)


async def _wrap_up(caller: Caller, conversation_id: str, turns: Sequence[Turn]) -> None:
    ended = ConversationEnded(conversation_id, datetime.now(UTC))
    await asyncio.gather(
        _sum_up(caller, conversation_id, turns), get_runtime().write_behind.write(caller.user_id, ended)
    )
    # All of it reads what is stored by now, and is cached for whoever comes back.
    await asyncio.gather(
        get_intelligent_first_message_instructions(caller.user_id, ""),
        get_user_profile_async(),
        get_conversation_summary_async(),
        get_user_state_async(),
    )


async def _sum_up(caller: Caller, conversation_id: str, turns: Sequence[Turn]) -> None:
    try:
        note = await summarise(turns, get_runtime().model)
    except Exception as problem:  # whatever a model's client raises
        logger.warning("the conversation could not be summed up (%s)", type(problem).__name__)
        return
    if not note:
        return
    await get_runtime().write_behind.write(caller.user_id, Summary(conversation_id, note, datetime.now(UTC)))
