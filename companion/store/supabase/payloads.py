"""Records as the rows that a request takes to the database."""

from typing import Any

from ...text import storable
from ..forgetting import Thing, word_hashes
from ..records import Memory, Summary, Turn


def turn(user_id: str, given: Turn) -> dict[str, Any]:
    row = {
        "user_id": user_id,
        "id": given.id,
        "conversation_id": given.conversation_id,
        "role": given.role,
        "text": storable(given.text),
        "at": given.at.isoformat(),
    }
    return row | ({"skipped": True} if given.skipped else {})


def memory(user_id: str, given: Memory) -> dict[str, Any]:
    return {"user_id": user_id, "id": given.id, "text": storable(given.text), "at": given.at.isoformat()}


def summary(user_id: str, given: Summary) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "conversation_id": given.conversation_id,
        "text": storable(given.text),
        "at": given.at.isoformat(),
    }


def thing(user_id: str, given: Thing) -> dict[str, Any]:
    return {
        "text": storable(given.text),
        "words": list(given.words),
        "hashes": word_hashes(user_id, given.words),
    }
