"""Records as the rows that a request takes to the database."""

from collections.abc import Sequence
from typing import Any

from ...text import storable
from ..forgetting import Thing, new_salt, word_hashes
from ..records import Memory, Opening, Summary, Turn


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


def opening(user_id: str, given: Opening) -> dict[str, Any]:
    return {
        "p_user_id": user_id,
        "p_version": given.version,
        "p_plan": given.plan,
        "p_texts": given.texts,
        "p_prompt": given.prompt,
        "p_at": given.at.isoformat(),
    }


def things(given: Sequence[Thing]) -> list[dict[str, Any]]:
    salt = new_salt()
    return [
        {
            "text": storable(thing.text),
            "words": list(thing.words),
            "salt": salt,
            "hashes": word_hashes(salt, thing.words),
        }
        for thing in given
    ]
