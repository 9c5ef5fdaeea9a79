"""The stage of the relationship between the companion and a user, from the number of their conversations."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

STAGES: Final = ((10, "familiar"), (3, "acquainted"), (0, "new"))
"""The least number of conversations of each stage."""
_REMEMBERED: Final = 8  # latest conversations whose ids are kept, so that a retried count changes nothing


@dataclass(frozen=True, slots=True)
class ConversationEnded:
    """A conversation that has ended, to be counted once.

    Attributes:
        conversation_id: the conversation.
        at: when it ended.
        since: as of a turn.
        language: the code of the language that the job named for the person; empty where it named none.
    """

    conversation_id: str
    at: datetime
    since: int = field(default=0, compare=False)
    language: str = ""


def count_conversation(state: dict[str, Any], ended: ConversationEnded) -> dict[str, Any]:
    """Count a conversation in a user's state.

    Args:
        state: the user's state; it is not changed.
        ended: the conversation.

    Returns:
        The new state; ``state`` itself if the conversation is among the latest that were counted.
    """
    known = state.get("last_counted")
    latest = known if isinstance(known, list) else [known] if known else []
    if ended.conversation_id in latest:
        return state
    before = state.get("conversations")
    count = (before if isinstance(before, int) else 0) + 1
    stage = next(name for least, name in STAGES if count >= least)
    latest = [*latest, ended.conversation_id][-_REMEMBERED:]
    spoken = {"language": ended.language} if ended.language else {}
    return {**state, **spoken, "conversations": count, "stage": stage, "last_counted": latest}
