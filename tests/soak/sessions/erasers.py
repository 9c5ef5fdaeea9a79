"""Erasures in the soak: of what was said before one, nothing returns, and who comes back is remembered anew."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from companion import Caller, get_user_profile_async, save_user_profile_async, use_caller
from companion.conversation.turn_log import TurnLog
from companion.memory.context import add_memory_async
from companion.memory.erasure import erase_user
from companion.memory.facts import find_facts_async
from companion.runtime import acquire_runtime, release_runtime
from companion.store import Memory, StoreError, Turn

_FLUSH_TIMEOUT: Final = 0.5
_ERASE_SHARE: Final = 0.3


@dataclass(eq=False)
class _Conversation:
    caller: Caller | None
    """None when it has ended: the soak judges what Python holds."""
    said: set[str] = field(default_factory=set)
    erased: bool = False
    """Whether its person was erased after it had begun."""
    known: bool = False
    """Whether it knew when it began, as it ended."""

    @property
    def knows_when_it_began(self) -> bool:
        return self.known if self.caller is None else self.caller.beginning.erasures is not None


@dataclass
class _User:
    user_id: str
    count: int = 0
    conversations: list[_Conversation] = field(default_factory=list)
    waits: bool = False
    """Whether an erasure was not complete at once."""

    def said(self, *, erased: bool) -> set[str]:
        """What was said in the conversations that began before an erasure, or in the others."""
        return set().union(*(one.said for one in self.conversations if one.erased is erased))


class Erasers:
    """Users, each with two conversations at a time, who ask to be forgotten now and then.

    Args:
        rng: of all random choices.
        texts_of: returns everything that the store holds of a user.
    """

    def __init__(self, rng: random.Random, texts_of: Callable[[str], list[str]]) -> None:
        self._rng = rng
        self._texts_of = texts_of
        self._users = [_User(f"erased-{number}") for number in range(3)]
        self.erasures = 0

    @property
    def users(self) -> list[str]:
        """Their ids."""
        return [user.user_id for user in self._users]

    async def run(self, until: Callable[[], bool]) -> None:
        """Talk and erase until ``until`` says so; at last each comes back once more."""

        async def talk(user: _User) -> None:
            while not until():
                await self._talk(user, may_erase=True)
                await asyncio.sleep(self._rng.uniform(0.1, 1.5))

        await asyncio.gather(*(talk(user) for user in self._users for _ in range(2)))
        await asyncio.gather(*(self._talk(user, may_erase=False) for user in self._users))

    def resurrected(self) -> int:
        """The number of things that were said before an erasure and are in the store."""
        return sum(self.returned(user.user_id, " ".join(self._texts_of(user.user_id))) for user in self._users)

    def returned(self, user_id: str, text: str) -> int:
        """The number of things in a text that were said before an erasure of the user."""
        (user,) = (user for user in self._users if user.user_id == user_id)
        return sum(token in text for token in user.said(erased=True))

    def crossed(self) -> int:
        """The number of things in the store that another user has said."""
        texts = {user.user_id: " ".join(self._texts_of(user.user_id)) for user in self._users}
        return sum(f"<{other}-" in text for user, text in texts.items() for other in texts if other != user)

    def lost(self) -> int:
        """The number of things that were said in the last conversations and are not in the store."""
        texts = {user.user_id: " ".join(self._texts_of(user.user_id)) for user in self._users}
        complete = [user for user in self._users if not user.waits]
        return sum(token not in texts[user.user_id] for user in complete for token in user.conversations[-1].said)

    async def _talk(self, user: _User, *, may_erase: bool) -> None:
        runtime = acquire_runtime()
        caller = Caller(user.user_id)
        talk = _Conversation(caller)
        user.conversations.append(talk)
        try:
            with use_caller(caller):
                log = TurnLog(caller, runtime.write_behind)
                for _ in range(self._rng.randint(1, 3)):
                    await self._say(user, talk, log)
                if may_erase and self._rng.random() < _ERASE_SHARE:
                    await self._erase(user)
                    await self._say(user, talk, log)  # the conversation goes on
                await log.close(_FLUSH_TIMEOUT)
        finally:
            talk.known, talk.caller = talk.knows_when_it_began, None
            await release_runtime(runtime)

    async def _say(self, user: _User, talk: _Conversation, log: TurnLog) -> None:
        user.count += 1
        token = f"<{user.user_id}-{user.count}>"
        talk.said.add(token)
        log.add(Turn("user", f"I said {token}", datetime.now(UTC), log.conversation_id))
        match self._rng.randrange(4):
            case 0:
                await save_user_profile_async(f"Likes: {token}", made_from="")
            case 1:
                await add_memory_async(Memory(f"has {token}", datetime.now(UTC)))
            case 2:
                await get_user_profile_async()
            case _:
                with contextlib.suppress(StoreError):
                    await find_facts_async("has")

    async def _erase(self, user: _User) -> None:
        # What a conversation says before it knows when it began may come after the erasure.
        begun = [talk for talk in user.conversations if talk.knows_when_it_began]
        # One that waits for the store also erases what is said until then.
        user.waits |= not await erase_user(user.user_id)
        self.erasures += 1
        for talk in begun:
            talk.erased = True
