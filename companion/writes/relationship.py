"""How well the companion and a person know each other: one more conversation each time one ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

STAGES: Final = ((10, "familiar"), (3, "acquainted"), (0, "new"))
"""From how many conversations on, which stage."""
_TOLD_APART: Final = 8  # conversations, the last ones, that are not count_conversation again when they are told again


@dataclass(frozen=True, slots=True)
class ConversationEnded:
    """A conversation that has ended, and is to be count_conversation once.

    Attributes:
        conversation_id: which.
        at: when.
    """

    conversation_id: str
    at: datetime


def count_conversation(state: dict[str, Any], ended: ConversationEnded) -> dict[str, Any]:
    """The state in which ``ended`` has been count_conversation; the same one if it is among the last that were."""
    known = state.get("last_counted")
    last = known if isinstance(known, list) else [known] if known else []
    if ended.conversation_id in last:
        return state
    before = state.get("conversations")
    count = (before if isinstance(before, int) else 0) + 1
    stage = next(name for least, name in STAGES if count >= least)
    last = [*last, ended.conversation_id][-_TOLD_APART:]
    return {**state, "conversations": count, "stage": stage, "last_counted": last}
