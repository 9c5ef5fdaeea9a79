"""What the tools for a person's data answer with, and whom they are about."""

from __future__ import annotations

import json
from typing import Any, Final

from livekit.agents import RunContext

from companion import Caller
from companion.text import storable_json
from companion.voice.agent import CompanionAgent

from .cache_tools import caller_of_session

MAX_TEXT: Final = 4000
"""Characters a fact or a change of a profile may have."""
UNKNOWN_CALLER: Final = "I do not know who you are, so I cannot keep or look up anything about you."
STORE_AWAY: Final = "I cannot reach my memory right now. Please try again in a moment."


def caller_of(context: RunContext[Any]) -> Caller | None:
    """The caller in the session's userdata; None if the caller is not known."""
    caller = caller_of_session(context)
    return caller if isinstance(caller, Caller) else None


def agent_of(context: RunContext[Any]) -> CompanionAgent | None:
    """The agent that talks; None if it is no companion."""
    agent = context.session.current_agent
    return agent if isinstance(agent, CompanionAgent) else None


async def update_agent(context: RunContext[Any], profile: str) -> None:
    """Put ``profile`` into the agent's instructions."""
    if (agent := agent_of(context)) is not None:
        await agent.set_profile(profile)


def success(**what: Any) -> str:
    """The answer of a tool that has done what it was asked."""
    return json.dumps(storable_json({"success": True} | what), ensure_ascii=False)


def failure(message: str, **what: Any) -> str:
    """The answer of a tool that has not."""
    return json.dumps(storable_json({"success": False, "message": message} | what), ensure_ascii=False)
