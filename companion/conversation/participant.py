"""Who a conversation is with: the participant of a room, and the caller behind them.

With metadata that names a user, the conversation is with the participant who has that identity, in either form of a
UUID; else with the only person in the room. With several and none of them, or where the metadata is unusable, the
caller is unknown. Without metadata the caller is the participant to whom the session is linked.

Participants come and go, and no event says that a session is linked to another one. So that no memory reaches another
person, the room is looked at again at each use (:attr:`Partner.caller`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from livekit import rtc
from livekit.agents import AgentSession

from ..identity import DIALLED, NUMBER, Caller, KnownAs, UnusableIdentity, person, phone_caller
from ..settings import Settings

logger = logging.getLogger("companion")
PEOPLE: Final = (
    rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD,
    rtc.ParticipantKind.PARTICIPANT_KIND_SIP,
    rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR,
)
"""Kinds of participants who are people: in an app, on the phone, or in another network. Others record, stream or are
agents."""
_POLL: Final = 0.02
"""Seconds between two looks while something waits for a participant."""
OnChange = Callable[[Caller | None], None]
"""Called with the person who seems to be the caller now; None if the caller is unknown."""


class Partner:
    """The person whom one session talks with.

    Args:
        session: the session.
        room: its room; None where participants do not come and go, as in the console.
        settings: who is an operator, and who is identified by a phone number.
        caller: the caller that the program or the job's metadata names; None if that is unusable.
        named: whether they name one.
        strict: accept as the named caller only who has their identity, because another was taken for them before.
        link: link the session to the participant whom the metadata names, if it was linked to another first.
        language: the language that the job names, for a caller who is known by their identity.
        on_change: called when another participant is the caller, where none is named.

    Attributes:
        met: whether a participant was taken for the named caller.
    """

    def __init__(
        self,
        session: AgentSession[Any],
        room: rtc.Room | None,
        settings: Settings,
        *,
        caller: Caller | None,
        named: bool,
        strict: bool = False,
        link: bool = False,
        language: str = "",
        on_change: OnChange = lambda *_: None,
    ) -> None:
        self._session, self._room, self._settings = session, room, settings
        self._caller, self._named, self._link = caller, named, link
        self._language, self._on_change = language, on_change
        self._identity: str | None = None
        self._begun = False
        self._warned = False
        self.met = strict

    @property
    def settled(self) -> bool:
        """Whether the session is linked to a participant, or to none because it has no room."""
        if self._room is None:
            return True
        try:
            return self._session.room_io.linked_participant is not None
        except RuntimeError:
            return False

    def started(self) -> None:
        """Note that the session has started: without a room, if it has none by now, so that no participant calls."""
        try:
            _ = self._session.room_io
        except RuntimeError:
            self._room = None
            if not self._named and self._caller is not None:
                self._caller = None
                self._on_change(None)

    async def arrival(self, timeout: float | None = None) -> None:
        """Wait until :attr:`settled`, ``timeout`` seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self.settled:  # noqa: ASYNC110 - the framework has no event for it
                    await asyncio.sleep(_POLL)

    @property
    def caller(self) -> Caller | None:
        """The caller, if the conversation is with them at this moment; None otherwise.

        In an empty room the last words of a caller who has left are still theirs; so are those after the session's end,
        since it is not linked to another participant any more.
        """
        self.look()
        if self._caller is None or self._room is None:
            return self._caller
        people, linked = self._people(), self._linked()
        if not people or (self._begun and self._unlinked()):
            return self._caller if self._begun else None
        if linked is None:
            return None
        alone = len(people) == 1 and linked.identity == self._identity
        return self._caller if alone or self._is(linked) else None

    @property
    def expected(self) -> Caller | None:
        """The caller, also before the session is linked to anybody: who is alone in the room, or will come into it."""
        self.look()
        if self._room is None or self._linked() is not None:
            return self.caller
        people = self._people()
        if not people:
            return self._caller if self._named and not self.met else self.caller
        return self._caller if len(people) == 1 and people[0].identity == self._identity else None

    def begin(self) -> Caller | None:
        """The caller, for something personal: from now on the conversation is theirs alone."""
        caller = self.caller
        if caller is not None:
            self._begun = True
        elif self._named and self._caller is not None and not self._warned and len(self._people()) > 1:
            self._warned = True
            logger.warning(
                "nothing is remembered in this conversation: the job's metadata names a user, and of the %d people in "
                "the room none has that identity, or the session is linked to another",
                len(self._people()),
            )
        return caller

    def look(self) -> None:
        """Choose the participant whom the conversation is with, until it has begun."""
        if self._begun or self._room is None:
            return
        people = self._people()
        if self._named:
            meant = next((one for one in people if self._is(one)), None)
            if meant is None and len(people) == 1 and not self.met:
                meant = people[0]
            if meant is not None:
                self.met, self._identity = True, meant.identity
                linked = self._linked()
                if self._link and linked is not None and linked.identity != meant.identity:
                    self._session.room_io.set_participant(meant.identity)
            return
        first = self._linked() or next(iter(people), None)
        if first is not None and first.identity != self._identity:
            self._identity = first.identity
            self._caller = self._identified(first)
            self._on_change(self._caller)

    def _identified(self, participant: rtc.RemoteParticipant) -> Caller | None:
        try:
            known = _known(participant, self._settings)
        except UnusableIdentity as problem:
            logger.warning("nothing is remembered in this conversation: %s", problem)
            return None
        operator = known.user_id in self._settings.operators
        return Caller(known.user_id, operator=operator, earlier=known.earlier, language=self._language)

    def _people(self) -> list[rtc.RemoteParticipant]:
        participants = self._room.remote_participants.values() if self._room is not None else ()
        return [one for one in participants if one.kind in PEOPLE]

    def _linked(self) -> rtc.RemoteParticipant | None:
        """The participant to whom the session is linked, if they are in the room."""
        try:
            linked = self._session.room_io.linked_participant
        except RuntimeError:  # it has not started in a room, or was closed
            return None
        present = linked is not None and any(one.identity == linked.identity for one in self._people())
        return linked if present else None

    def _unlinked(self) -> bool:
        """Whether the session has no link to the room: not yet, or not any more."""
        try:
            _ = self._session.room_io
        except RuntimeError:
            return True
        return False

    def _is(self, participant: rtc.RemoteParticipant) -> bool:
        try:
            known = _known(participant, self._settings)
        except UnusableIdentity:
            return False
        return self._caller is not None and self._caller.user_id in (known.user_id, *known.earlier)


def _known(participant: rtc.RemoteParticipant, settings: Settings) -> KnownAs:
    """The ids that a participant is known by.

    Raises:
        UnusableIdentity: their identity is a placeholder, or cannot be a user id.
    """
    # Attributes of others are no telephone network's.
    if not settings.phone_identity or participant.kind != rtc.ParticipantKind.PARTICIPANT_KIND_SIP:
        return KnownAs(person(participant.identity))
    number, dialled = (participant.attributes.get(name) or "" for name in (NUMBER, DIALLED))
    return phone_caller(participant.identity, number, dialled, settings.id_key)
