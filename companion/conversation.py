"""What is said, kept: every turn goes to the store in the background and never delays an answer."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from livekit.agents import ConversationItemAddedEvent, llm

from .identity import Caller
from .runtime import get_runtime
from .store import StoreError, Turn

logger = logging.getLogger("companion")
DRAIN: Final = 5.0
"""Seconds the end of a conversation waits for turns that are not stored yet."""
_PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between tries while the store cannot; the last one repeats


class TurnLog:
    """Stores the turns of one conversation, in order, one at a time, once the person has said something.

    Args:
        caller: whose conversation it is; None keeps nothing.
        conversation_id: names the conversation; a new one where None.
    """

    def __init__(self, caller: Caller | None, conversation_id: str | None = None) -> None:
        self.caller = caller
        self.conversation_id = conversation_id or uuid4().hex
        self.turns: list[Turn] = []
        """What was said in this conversation."""
        self._answered = False
        self._waiting: list[Turn] = []
        self._writer: asyncio.Task[None] | None = None

    def on_item(self, event: ConversationItemAddedEvent) -> None:
        """The session's ``conversation_item_added``: keep what the user and the companion said."""
        item = event.item
        if self.caller is None or not isinstance(item, llm.ChatMessage) or item.role not in ("user", "assistant"):
            return
        if text := (item.text_content or "").strip():
            role, at = item.role, datetime.fromtimestamp(item.created_at, UTC)
            self.add(Turn(role=role, text=text, at=at, conversation_id=self.conversation_id, id=item.id))

    def add(self, turn: Turn) -> None:
        """Keep a turn. Returns at once; the store is written in the background."""
        if self.caller is None:
            return
        self.turns.append(turn)
        if turn.role == "assistant" and all(one.role == "assistant" for one in self.turns):
            return  # a greeting that nobody has answered yet: nothing was said that another one could follow up
        # With the first answer, the greeting before it goes too.
        self._waiting += self.turns if not self._answered else [turn]
        self._answered = True
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(self.caller), name="turn-log")

    async def drain(self, timeout: float = DRAIN) -> int:
        """Wait until everything is stored, at most ``timeout`` seconds. Returns how many turns are not."""
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=timeout)
            if not self._writer.done():
                self._writer.cancel()
                await asyncio.wait({self._writer}, timeout=1.0)
        if self._waiting:
            logger.error("%d turns could not be stored", len(self._waiting))
        return len(self._waiting)

    async def _write(self, caller: Caller) -> None:
        failures = 0
        while self._waiting:
            try:
                # The id is the natural key, so a write that was cut off and is tried again changes nothing.
                await get_runtime().store.add_turn(caller.user_id, self._waiting[0])
            except Exception as problem:  # whatever a store may do, the turn is kept and tried again
                if failures == 0:
                    reason = problem if isinstance(problem, StoreError) else type(problem).__name__
                    logger.warning("turns wait for the store: %s", reason)
                await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1
                continue
            failures = 0
            self._waiting.pop(0)
            if not self._waiting:  # what was just said decides how the next conversation opens
                await get_runtime().delivery.changed(caller.user_id, "turn")
