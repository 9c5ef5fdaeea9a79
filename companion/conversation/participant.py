"""Identifies the caller by the participant in the room, for a job whose metadata names no user.

A participant may leave while the prefetch for them is running, and another may join. Their briefings must not be mixed
up, so a briefing is used only if its participant is still in the room when it is complete.
"""

from __future__ import annotations

from typing import NamedTuple

from livekit.agents import JobContext

from ..identity import Caller, caller_from_identity
from ..voice.tracing import StartTrace
from .briefing import Prefetch


class Participant(NamedTuple):
    """A participant and the prefetch for them.

    Attributes:
        identity: the participant's identity; the session must be linked to this participant alone.
        caller: the caller behind it; None for an unusable identity.
        prefetch: the caller's prefetch, complete or past its deadline.
    """

    identity: str
    caller: Caller | None
    prefetch: Prefetch


async def wait_for_participant(ctx: JobContext, operators: frozenset[str], trace: StartTrace) -> Participant:
    """Wait for a participant who is still in the room when the prefetch for them is complete.

    Args:
        ctx: the job; its room is connected.
        operators: ids that are operators.
        trace: the trace of the start.
    """
    while True:
        identity = (await ctx.wait_for_participant()).identity
        caller = caller_from_identity(identity, operators)
        prefetch = Prefetch(caller, trace)
        await prefetch.wait()
        if any(participant.identity == identity for participant in ctx.room.remote_participants.values()):
            return Participant(identity, caller, prefetch)
        prefetch.cancel()
