"""Finds the participant whom a conversation is with, and the caller behind them.

With metadata that names a user, the conversation is with the participant who has that identity, in either form of a
UUID; else with the only person in the room. With several and none of them, or where the metadata is unusable, the
caller is unknown. Without metadata the participant's identity is the caller's.

Participants come and go meanwhile: while the prefetch runs, while the session starts, and during the conversation. A
briefing of one must not reach another, so that whose conversation it is is looked at again each time (:class:`Link`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from livekit import rtc
from livekit.agents import JobContext

from ..identity import DIALLED, NUMBER, Caller, PhoneCaller, UnusableIdentity, person, phone_caller
from ..memory.adoption import adopt_async
from ..settings import Settings
from ..voice.tracing import StartTrace
from .briefing import Briefing, Prefetch

logger = logging.getLogger("companion")
PEOPLE: Final = (
    rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD,
    rtc.ParticipantKind.PARTICIPANT_KIND_SIP,
    rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR,
)
"""Kinds of participants who are people: in an app, on the phone, or in another network. Others record, stream or are
agents."""


@dataclass(frozen=True, slots=True)
class Link:
    """One conversation: with whom it is, and what it starts from.

    Attributes:
        settings: say who is identified by a phone number.
        room: the room; None in the console, where nobody comes and goes.
        identity: the participant's identity; the session must be linked to this participant alone.
        caller: the caller; None if unknown.
        prefetch: the prefetch for them, complete or past its deadline.
        briefing: its result.
    """

    settings: Settings
    room: rtc.Room | None
    identity: str
    caller: Caller | None
    prefetch: Prefetch
    briefing: Briefing

    @property
    def present(self) -> bool:
        """Whether the participant is in the room."""
        return self.room is None or any(one.identity == self.identity for one in _people(self.room))

    @property
    def known_caller(self) -> Caller | None:
        """The caller, if it still is who the conversation is with; None otherwise.

        In an empty room the last words of a caller who has left are still theirs.
        """
        if self.caller is None or self.room is None:
            return self.caller
        people = _people(self.room)
        fits = any(
            one.identity == self.identity and (len(people) == 1 or _is(one, self.caller, self.settings))
            for one in people
        )
        return self.caller if fits or not people else None


class CallerSearch:
    """Finds the participant and the caller of one conversation; of the next one if they were gone before it started.

    Args:
        ctx: the job.
        settings: who is an operator, and who is identified by a phone number.
        trace: the trace of the start.
        named: whether the metadata names the caller. Then the prefetch begins at once.
        caller: the caller that it names; None if unknown.
    """

    def __init__(
        self, ctx: JobContext, settings: Settings, trace: StartTrace, *, named: bool, caller: Caller | None
    ) -> None:
        self._ctx, self._settings, self._trace = ctx, settings, trace
        self._named, self._caller = named, caller
        self._greeted = False
        self._prefetch = Prefetch(caller, trace) if named else None

    async def console(self) -> Link:
        """The conversation with the console's user, who is named."""
        prefetch = self._prefetch or Prefetch(self._caller, self._trace)
        return Link(self._settings, None, "", self._caller, prefetch, await prefetch.result())

    async def next(self) -> Link | None:
        """Wait for a participant who is still in the room when the prefetch for them is complete.

        Returns:
            The conversation; to be started without awaiting anything else first. None when the room has closed.
        """
        while True:
            try:
                first = await self._ctx.wait_for_participant()
            except RuntimeError:
                if self._ctx.room.isconnected():
                    raise
                return None
            if not self._named:
                await self._identify(first)
            elif self._greeted and self._caller is not None:  # a conversation of its own, from what is known by now
                self.cancel()
                self._caller = Caller(self._caller.user_id, self._caller.operator)
                self._prefetch = Prefetch(self._caller, self._trace)
            link = await self._link(first.identity)
            if link is not None and link.present:
                self._greeted = True
                return link

    def cancel(self) -> None:
        """Discard the prefetch."""
        if self._prefetch is not None:
            self._prefetch.cancel()

    async def _identify(self, participant: rtc.RemoteParticipant) -> None:
        """Make the participant the caller, and begin the prefetch for them."""
        self.cancel()
        self._caller = None
        earlier: tuple[str, ...] = ()
        try:
            known = _known(participant, self._settings)
            earlier = known.earlier
            is_operator = known.user_id in self._settings.operators
            self._caller = Caller(known.user_id, operator=is_operator, earlier=earlier)
        except UnusableIdentity as problem:
            logger.warning("nothing is remembered in this conversation: %s", problem)
        self._prefetch = Prefetch(self._caller, self._trace)
        if self._caller is not None and earlier and await adopt_async(self._caller.user_id, earlier):
            self._prefetch.cancel()
            self._prefetch = Prefetch(self._caller, self._trace)

    async def _link(self, identity: str) -> Link | None:
        """The conversation as the room is when the prefetch is complete; None where nobody is in it."""
        room, prefetch = self._ctx.room, self._prefetch
        assert prefetch is not None
        await prefetch.wait()
        briefing = await prefetch.result()
        if not self._named:
            return Link(self._settings, room, identity, self._caller, prefetch, briefing)
        people = _people(room)
        chosen = self._chosen(people)
        if chosen is not None:
            return Link(self._settings, room, chosen.identity, self._caller, prefetch, briefing)
        if not people:
            return None
        if self._caller is not None:
            logger.warning(
                "nothing is remembered in this conversation: the job's metadata names a user, and of the %d people in "
                "the room none has that identity",
                len(people),
            )
        unknown = Prefetch(None)
        return Link(self._settings, room, people[0].identity, None, unknown, await unknown.result())

    def _chosen(self, people: Sequence[rtc.RemoteParticipant]) -> rtc.RemoteParticipant | None:
        """The participant whom the metadata means. Once someone was greeted as them, the next one must have the id."""
        if self._caller is None:
            return None
        for one in people:
            if _is(one, self._caller, self._settings):
                return one
        return people[0] if len(people) == 1 and not self._greeted else None


def _people(room: rtc.Room) -> list[rtc.RemoteParticipant]:
    return [one for one in room.remote_participants.values() if one.kind in PEOPLE]


def _is(participant: rtc.RemoteParticipant, caller: Caller, settings: Settings) -> bool:
    try:
        known = _known(participant, settings)
    except UnusableIdentity:
        return False
    return caller.user_id in (known.user_id, *known.earlier)


def _known(participant: rtc.RemoteParticipant, settings: Settings) -> PhoneCaller:
    """The ids that a participant is known by.

    Raises:
        UnusableIdentity: they are nobody in particular, or have an identity that cannot be one.
    """
    # Attributes of others are no telephone network's.
    if not settings.phone_identity or participant.kind != rtc.ParticipantKind.PARTICIPANT_KIND_SIP:
        return PhoneCaller(person(participant.identity), ())
    number, dialled = (participant.attributes.get(name) or "" for name in (NUMBER, DIALLED))
    return phone_caller(participant.identity, number, dialled, settings.id_key)
