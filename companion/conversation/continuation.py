"""Continues a conversation whose job was killed, in the next job for the same room and person.

Redis holds, for each person in a room, a lease that names the job of their conversation, which renews it, and from the
first words until the end the conversation's id. A job that gets the lease and finds the id continues the conversation.
While Redis is away, or another job holds the lease, a conversation begins anew.

A job whose lease another one has taken is no killed one: it may have been cut off from Redis. It and its caller go on.
What they say from then on is a conversation of its own, so that neither job's turns are among the other's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from hashlib import sha256
from typing import Final
from uuid import uuid4

from livekit.agents import llm

from cache import BackgroundTasks, get_redis_cache, keys

from ..identity import Caller
from ..memory.read_deadline import within_deadline
from ..runtime import get_runtime
from ..store import StoreError, Turn

logger = logging.getLogger("companion")
LEASE: Final = 1
"""Seconds after which the lease of a killed job expires."""
RENEW: Final = 0.4
"""Seconds between two renewals."""
PATIENCE: Final = LEASE + 0.05
"""Seconds that a job waits for the lease of another: the next job may start as soon as one is killed."""
READ_DEADLINE: Final = 1.0
"""Seconds that a job waits for what was said."""


class Continuation:
    """The conversation of one person in one room, from job to job.

    Args:
        room: names the room, and the agent in it.
        caller: the person.
        on_lost: called when another job has taken the conversation over.

    Attributes:
        caller: the person.
        conversation_id: names the conversation; None without Redis, and where another job holds the lease.
        resumed: whether something was said until a job was killed, if only the greeting.
        turns: what is stored of that; empty for a new conversation.
    """

    def __init__(self, room: str, caller: Caller, on_lost: Callable[[], None]) -> None:
        self.caller = caller
        self._name = sha256(f"{room}\0{caller.user_id}".encode()).hexdigest()[:32]
        self._job = uuid4().hex
        self._on_lost = on_lost
        self._said = False
        self._renewing = BackgroundTasks()
        self.conversation_id: str | None = None
        self.resumed = False
        self.turns: list[Turn] = []

    async def open(self) -> None:
        """Take the lease, and read what was said if the conversation has not ended."""
        cache = await get_redis_cache()
        give_up = asyncio.get_running_loop().time() + PATIENCE
        if not cache.enabled:
            return
        while not await cache.set(self._key("lease"), self._job, ttl=LEASE, nx=True):
            if not cache.connected:
                break  # Redis is away: it is taken when Redis is back
            if asyncio.get_running_loop().time() > give_up:
                return  # it is held by another job
            await asyncio.sleep(0.05)
        running = await cache.get(self._key("running"), counted=False)
        self.resumed = self._said = isinstance(running, str)
        # A new id is random: a count would begin anew in an emptied Redis, and name an earlier conversation again.
        self.conversation_id = running if self.resumed else uuid4().hex
        self._renewing.spawn(self._renew(), name="conversation-lease")
        if self.resumed:
            try:
                read = get_runtime().contexts.get(self.caller.user_id)
                context = await within_deadline(read, "context", seconds=READ_DEADLINE)
                said = [turn for turn in context.turns if turn.conversation_id == self.conversation_id]
                self.turns = said if any(turn.role == "user" for turn in said) else []
            except StoreError as problem:
                logger.warning("a conversation that was cut off could not be read: %s", problem)
                self.resumed = False  # the caller may wait for an answer: they are greeted, not met with silence

    async def close(self) -> None:
        """Note that the conversation has ended, and give the lease back."""
        await self._renewing.cancel()
        if self.conversation_id is not None and await self._hold():
            await (await get_redis_cache()).delete(self._key("running"), self._key("lease"))

    def on_item(self) -> None:
        """Note that something was said: from now on, there is a conversation to continue."""
        if self.conversation_id is not None and not self._said:
            self._said = True
            self._renewing.spawn(self._mark(), name="conversation-mark")

    def place(self, chat_ctx: llm.ChatContext, index: int) -> None:
        """Put what was said into the context of one request, from ``index`` on."""
        there = {item.id for item in chat_ctx.items}
        chat_ctx.items[index:index] = [
            llm.ChatMessage(id=turn.id, role=turn.role, content=[turn.text], created_at=turn.at.timestamp())
            for turn in self.turns
            if turn.id not in there and not turn.skipped
        ]

    async def _renew(self) -> None:
        while await self._hold():
            if self._said:
                await self._mark()
            await asyncio.sleep(RENEW)
        self.conversation_id = None
        logger.warning("another job has taken this conversation over: it goes on here as one of its own")
        self._on_lost()

    async def _mark(self) -> None:
        await (await get_redis_cache()).set(self._key("running"), self.conversation_id, ttl=keys.TEMP_TTL)

    async def _hold(self) -> bool:
        """Renew the lease, or take it again where Redis has lost it. Returns whether no other job has it."""
        cache = await get_redis_cache()
        holder = await cache.get(self._key("lease"), counted=False)
        if holder is None:  # it has expired; or Redis was emptied, or is away
            await cache.set(self._key("lease"), self._job, ttl=LEASE, nx=True)
        elif holder == self._job:
            await cache.expire(self._key("lease"), LEASE)
        return holder in (None, self._job)

    def _key(self, name: str) -> keys.Key:
        return keys.temp(self._name, name)
