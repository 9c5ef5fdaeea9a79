"""Which parts of a memory a session has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parts:
    """What a memory does.

    Attributes:
        profile: gives the model the caller's profile.
        earlier: gives the model earlier conversations.
        turns: stores what is said.
        opening: greets by what was said last: as a first meeting, a follow-up, after a dropped call.
        wrap_up: sums the conversation up, counts it, and prepares the next greeting.
        resume: goes on with a conversation whose job was killed.
        tasks: gives both to an ``AgentTask`` as well.
    """

    profile: bool = True
    earlier: bool = True
    turns: bool = True
    opening: bool = True
    wrap_up: bool = True
    resume: bool = True
    tasks: bool = False
