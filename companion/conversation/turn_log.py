"""Stores every turn of a conversation in the background; no answer waits for the store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

from livekit.agents import ConversationItemAddedEvent, llm

from ..identity import Caller
from ..store import Turn
from ..writes import WriteBehind

_MOMENT: Final = timedelta(microseconds=1)
FLUSH_TIMEOUT: Final = 4.0
"""Seconds that closing waits for turns that are not stored yet."""


class TurnLog:
    """Stores the turns of one conversation in the background, from the caller's first turn on.

    Args:
        caller: whose conversation it is; None stores nothing.
        writes: takes the turns to the store.
        conversation_id: names the conversation; a new id where None.
    """

    def __init__(self, caller: Caller | None, writes: WriteBehind, conversation_id: str | None = None) -> None:
        self.caller = caller
        self.conversation_id = conversation_id or uuid4().hex
        self.turns: list[Turn] = []
        """The turns of this conversation so far."""
        self._writes = writes
        self._answered = False
        if caller is not None:
            writes.begin_conversation(caller.user_id)

    def on_item(self, event: ConversationItemAddedEvent) -> None:
        """Handle the session's ``conversation_item_added``: add what the caller and the companion said."""
        item = event.item
        if self.caller is None or not isinstance(item, llm.ChatMessage) or item.role not in ("user", "assistant"):
            return
        if text := (item.text_content or "").strip():
            role, at = item.role, datetime.fromtimestamp(item.created_at, UTC)
            if self.turns:  # a clock that is set back must not change the order
                at = max(at, self.turns[-1].at + _MOMENT)
            self.add(Turn(role=role, text=text, at=at, conversation_id=self.conversation_id, id=item.id))

    def add(self, turn: Turn) -> None:
        """Add a turn. Returns at once; the store is written in the background."""
        if self.caller is None:
            return
        self.turns.append(turn)
        if turn.role == "assistant" and all(each.role == "assistant" for each in self.turns):
            return  # an unanswered greeting: a conversation in which the caller said nothing leaves no trace
        # The caller's first turn takes the greeting before it along.
        self._writes.add(self.caller.user_id, *(self.turns if not self._answered else [turn]))
        self._answered = True

    async def close(self, timeout: float = FLUSH_TIMEOUT) -> int:
        """Wait until every turn is stored; the rest is spooled for the next start. To be called once.

        Args:
            timeout: seconds to wait at most.

        Returns:
            How many writes are not stored.
        """
        return 0 if self.caller is None else await self._writes.end_conversation(self.caller.user_id, timeout)
