"""Stores every turn of a conversation in the background; no answer waits for the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

from livekit.agents import ConversationItemAddedEvent, FunctionToolsExecutedEvent, llm

from ..forget_request import FORGET_EVERYTHING, FORGET_FACT, forget_request
from ..identity import Caller, use_caller
from ..offline.replies import NO_SECRETS
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
        turns: what was said in it before, and is stored.
    """

    def __init__(
        self,
        caller: Caller | None,
        writes: WriteBehind,
        conversation_id: str | None = None,
        turns: Sequence[Turn] = (),
    ) -> None:
        self.caller = caller
        self.conversation_id = conversation_id or uuid4().hex
        self.turns: list[Turn] = list(turns)
        """The turns of this conversation so far."""
        self._writes = writes
        self._answered = bool(turns)
        self._skipping = False  # whether what is said is not to be brought up: it belongs to a request to forget
        self._asked = False  # whether such a request waits for an answer of the caller
        if caller is not None:
            writes.begin_conversation(caller.user_id)
            writes.beginnings.note(caller)

    @property
    def own(self) -> bool:
        """Whether the caller said something in this conversation, rather than in the one from which it has parted."""
        return any(turn.role == "user" and turn.conversation_id == self.conversation_id for turn in self.turns)

    def part(self) -> None:
        """Go on as a conversation of its own. What is stored stays what it is, and what was said before is known."""
        self.conversation_id = uuid4().hex
        if not self._answered:  # nothing is stored
            self.turns = [replace(turn, conversation_id=self.conversation_id) for turn in self.turns]

    def on_tools(self, event: FunctionToolsExecutedEvent) -> None:
        """Handle the session's ``function_tools_executed``: a tool that forgets marks what asked for it.

        That is the caller's last turn and what the companion has said since; what it says next is marked as well, and
        so is the answer to its question. After everything was forgotten, the store keeps no more of it.
        """
        for call, output in event.zipped():
            if call.name not in (FORGET_FACT, FORGET_EVERYTHING):
                continue
            done = _succeeded(output)
            if done and call.name == FORGET_EVERYTHING:
                self.turns.clear()
                self._answered, self._skipping, self._asked = False, True, False
                continue
            self._skip_exchange()
            self._asked = not done

    def on_item(self, event: ConversationItemAddedEvent) -> None:
        """Handle the session's ``conversation_item_added``: add what the caller and the companion said."""
        item = event.item
        if self.caller is None or not isinstance(item, llm.ChatMessage) or item.role not in ("user", "assistant"):
            return
        if text := (item.text_content or "").strip():
            role, at = item.role, datetime.fromtimestamp(item.created_at, UTC)
            if role == "user":
                self._skipping, self._asked = self._asked or forget_request(text) is not None, False
            elif self._skipping and not self.turns:
                return  # what is said about the erasure of everything
            elif NO_SECRETS.startswith(text[: len(NO_SECRETS)]):  # the caller may have interrupted it
                self._skip_exchange()
            if self.turns:  # a clock that is set back must not change the order
                at = max(at, self.turns[-1].at + _MOMENT)
            self.add(
                Turn(
                    role=role,
                    text=text,
                    at=at,
                    conversation_id=self.conversation_id,
                    id=item.id,
                    skipped=self._skipping,
                )
            )

    def add(self, turn: Turn) -> None:
        """Add a turn. Returns at once; the store is written in the background."""
        if self.caller is None:
            return
        self.turns.append(turn)
        if turn.role == "assistant" and all(each.role == "assistant" for each in self.turns):
            return  # an unanswered greeting: a conversation in which the caller said nothing leaves no trace
        # The caller's first turn takes the greeting before it along.
        with use_caller(self.caller):
            self._writes.add(self.caller.user_id, *(self.turns if not self._answered else [turn]))
        self._answered = True

    def _skip_exchange(self) -> None:
        """Bring up neither the caller's last turn, nor what the companion has said since, or says next."""
        last = max((index for index, turn in enumerate(self.turns) if turn.role == "user"), default=0)
        for index in range(last, len(self.turns)):
            self._skip(index)
        self._skipping = True

    def _skip(self, index: int) -> None:
        turn = self.turns[index]
        if self.caller is not None and not turn.skipped:
            self.turns[index] = replace(turn, skipped=True)
            if self._answered:
                with use_caller(self.caller):
                    self._writes.add(self.caller.user_id, self.turns[index])

    async def close(self, timeout: float = FLUSH_TIMEOUT) -> int:
        """Wait until every turn is stored; the rest is spooled for the next start. To be called once.

        Args:
            timeout: seconds to wait at most.

        Returns:
            How many writes are not stored.
        """
        return 0 if self.caller is None else await self._writes.end_conversation(self.caller.user_id, timeout)


def _succeeded(output: llm.FunctionCallOutput) -> bool:
    try:
        fields = json.loads(output.output)
    except ValueError:
        return False
    return isinstance(fields, dict) and fields.get("success") is True
