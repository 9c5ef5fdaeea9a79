"""Who is here, where no dispatcher has said it: whoever is in the room, once it is known what to say to them.

Between the moment somebody is seen and the moment the companion could talk, they may hang up and another may come.
What was fetched belongs to the one who left: for whoever is there then everything is fetched anew.
"""

from __future__ import annotations

from typing import NamedTuple

from livekit.agents import JobContext

from ..identity import Caller, caller_from_identity
from ..voice.tracing import StartTrace
from .briefing import BriefingOrder


class Arrival(NamedTuple):
    """Somebody, and what is known of them.

    Attributes:
        identity: the participant's, who alone may be told it.
        caller: who that is; None for an identity that cannot be used.
        order: what was fetched for them.
    """

    identity: str
    caller: Caller | None
    order: BriefingOrder


async def whoever_comes(ctx: JobContext, operators: frozenset[str], trace: StartTrace) -> Arrival:
    """The first participant who is still there when all is fetched.

    Args:
        ctx: of the job; its room is connected.
        operators: ids that are operators.
        trace: of the start.
    """
    while True:
        identity = (await ctx.wait_for_participant()).identity
        caller = caller_from_identity(identity, operators)
        order = BriefingOrder(caller, trace)
        await order.fetched()
        if any(one.identity == identity for one in ctx.room.remote_participants.values()):
            return Arrival(identity, caller, order)
        await order.ready()  # nobody wants it any more: what is late is cancelled, and what failed is told
