"""What the tools for a person's data answer with, and whom they are about."""

from __future__ import annotations

import json
from typing import Any, Final

from livekit.agents import AgentSession, RunContext

from companion import Caller
from companion.conversation.session_memory import SessionMemory, memory_of
from companion.text import storable_json

from .cache_tools import caller_of_session, find_callers_with

MAX_TEXT: Final = 4000
"""Characters a fact or a change of a profile may have."""
UNKNOWN_CALLER: Final = "I do not know who you are, so I cannot keep or look up anything about you."
STORE_AWAY: Final = "I cannot reach my memory right now. Please try again in a moment."


def _remembered_caller(session: AgentSession[Any]) -> Caller | None:
    """The caller in the session's memory. Raises LookupError for a session without one."""
    memory = memory_of(session)
    if memory is None:
        raise LookupError("no memory is attached to this session")
    return memory.caller


find_callers_with(_remembered_caller)


def caller_of(context: RunContext[Any]) -> Caller | None:
    """The caller in the session's memory, or else in its userdata; None if the caller is not known."""
    caller = caller_of_session(context)
    return caller if isinstance(caller, Caller) else None


def memory_in(context: RunContext[Any]) -> SessionMemory | None:
    """The session's memory; None where none is attached."""
    return memory_of(context.session)


async def tell(context: RunContext[Any], profile: str) -> None:
    """Tell the model ``profile`` from its next request on."""
    if (memory := memory_in(context)) is not None:
        await memory.known.set_profile(profile)


def success(**what: Any) -> str:
    """The answer of a tool that has done what it was asked."""
    return json.dumps(storable_json({"success": True} | what), ensure_ascii=False)


def failure(message: str, **what: Any) -> str:
    """The answer of a tool that has not."""
    return json.dumps(storable_json({"success": False, "message": message} | what), ensure_ascii=False)
