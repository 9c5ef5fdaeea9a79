"""What is said, kept: every turn goes to the store in the background and never delays an answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from livekit.agents import ConversationItemAddedEvent, llm

from ..identity import Caller
from ..runtime import get_runtime
from ..store import Turn

DRAIN: Final = 4.0
"""Seconds the end of a conversation waits for turns that are not stored yet."""


class TurnLog:
    """Stores the turns of one conversation in the background, once the person has said something.

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
        if caller is not None:
            get_runtime().write_behind.begin_conversation(caller.user_id)

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
        get_runtime().write_behind.add(self.caller.user_id, *(self.turns if not self._answered else [turn]))
        self._answered = True

    async def end(self, timeout: float = DRAIN) -> int:
        """To be called once: wait at most ``timeout`` seconds until all is stored; the rest is kept for the next start.

        Returns how many writes are not stored.
        """
        return (
            0
            if self.caller is None
            else await get_runtime().write_behind.end_conversation(self.caller.user_id, timeout)
        )
