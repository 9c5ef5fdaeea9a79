"""Continues a conversation whose job was killed, in the next job for the same room and person.

Redis holds, for each person in a room, the number of their conversation, a mark that it has not ended, and a lease that
its job renews. A job that finds the mark and gets the lease continues the conversation. While Redis is away, or another
job holds the lease, a conversation begins anew.
"""

from __future__ import annotations

import asyncio
import logging
from hashlib import sha256
from typing import Final

from livekit.agents import llm

from cache import BackgroundTasks, get_redis_cache, keys

from ..identity import Caller
from ..runtime import get_runtime
from ..store import StoreError, Turn

logger = logging.getLogger("companion")
LEASE: Final = 2
"""Seconds after which the lease of a killed job expires."""
RENEW: Final = 0.7
"""Seconds between two renewals."""
PATIENCE: Final = 0.7
"""Seconds that a job waits for the lease of another."""
_KEPT: Final = 7 * 86_400  # seconds that the numbers are kept: longer than a room stays open


class Continuation:
    """The conversation of one person in one room, from job to job.

    Args:
        room: names the room, and the agent in it.
        caller: the person.

    Attributes:
        conversation_id: names the conversation; None where it is not known to Redis.
        turns: what was said in it until the job was killed; empty for a new conversation.
        lost: whether another job has taken the conversation over.
    """

    def __init__(self, room: str, caller: Caller) -> None:
        self._user_id = caller.user_id
        self._name = sha256(f"{room}\0{caller.user_id}".encode()).hexdigest()[:32]
        self._holder: int | None = None
        self._renewing = BackgroundTasks()
        self.conversation_id: str | None = None
        self.turns: list[Turn] = []
        self.lost = False

    async def open(self) -> None:
        """Take the lease, and read what was said if the conversation has not ended."""
        cache = await get_redis_cache()
        give_up = asyncio.get_running_loop().time() + PATIENCE
        running = bool(await cache.exists(self._key("running")))
        while not await cache.set(self._key("lease"), 1, ttl=LEASE, nx=True):
            if not cache.connected or not running or asyncio.get_running_loop().time() > give_up:
                return  # it is held by another job; or Redis is away
            await asyncio.sleep(0.05)
        self._holder = await cache.incr(self._key("holder"), ttl=_KEPT)
        number = await cache.incr(self._key("number"), 0 if running else 1, ttl=_KEPT)
        if self._holder is None or number is None:
            return
        self.conversation_id = f"{self._name}-{number}"
        self._renewing.spawn(self._renew(), name="conversation-lease")
        if running:
            try:
                context = await get_runtime().contexts.get(self._user_id)
                said = [turn for turn in context.turns if turn.conversation_id == self.conversation_id]
                self.turns = said if any(turn.role == "user" for turn in said) else []
            except StoreError as problem:
                logger.warning("a conversation that was cut off could not be read: %s", problem)

    async def close(self) -> None:
        """Note that the conversation has ended, and give the lease back."""
        await self._renewing.cancel()
        if self.conversation_id is not None and not self.lost:
            await (await get_redis_cache()).delete(self._key("running"), self._key("lease"))

    def place(self, chat_ctx: llm.ChatContext, index: int) -> None:
        """Put what was said into the context of one request, from ``index`` on."""
        there = {item.id for item in chat_ctx.items}
        chat_ctx.items[index:index] = [
            llm.ChatMessage(id=turn.id, role=turn.role, content=[turn.text], created_at=turn.at.timestamp())
            for turn in self.turns
            if turn.id not in there and not turn.skipped
        ]

    async def _renew(self) -> None:
        cache = await get_redis_cache()
        while True:
            ours, holder = self._holder or 0, await cache.incr(self._key("holder"), 0, ttl=_KEPT)
            if holder is not None and holder < ours:  # Redis was emptied, or restored: it is ours all the same
                holder = await cache.incr(self._key("holder"), ours - holder, ttl=_KEPT)
            if holder is not None and holder > ours:
                self.lost = True
                logger.warning("another job has taken this conversation over: nothing more of it is remembered here")
                return
            await cache.set(self._key("lease"), 1, ttl=LEASE)
            await cache.set(self._key("running"), 1, ttl=keys.TEMP_TTL)
            await asyncio.sleep(RENEW)

    def _key(self, name: str) -> keys.Key:
        return keys.temp(self._name, name)
