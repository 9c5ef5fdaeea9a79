"""How well the companion and a person know each other: one more conversation each time one ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

STAGES: Final = ((10, "familiar"), (3, "acquainted"), (0, "new"))
"""From how many conversations on, which stage."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A conversation that has ended, and is to be counted once.

    Attributes:
        conversation_id: which.
        at: when.
    """

    conversation_id: str
    at: datetime


def counted(state: dict[str, Any], ended: Ended) -> dict[str, Any]:
    """The state in which ``ended`` has been counted; the same one if it has been the last to be."""
    if state.get("last_counted") == ended.conversation_id:
        return state
    before = state.get("conversations")
    count = (before if isinstance(before, int) else 0) + 1
    stage = next(name for least, name in STAGES if count >= least)
    return {**state, "conversations": count, "stage": stage, "last_counted": ended.conversation_id}
