"""All that is kept of a person as JSON text, and back."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from .profile_history import ProfileVersion
from .records import Memory, Opening, PersonData, Summary, Turn

_OF_A_WRITE: Final = {"since", "knows", "skipped"}  # what a record says about its writing, not about the person


def person_to_json(user_id: str, data: PersonData, waiting: list[dict[str, Any]] | None = None) -> str:
    """Encode what is kept of a person.

    Args:
        user_id: the person.
        data: what the store keeps.
        waiting: what waits for the store, as it is written down.

    Returns:
        The JSON text, indented; any program that reads JSON can read it.
    """
    records: dict[str, Sequence[object]] = {
        "versions": data.versions,
        "turns": data.turns,
        "memories": data.memories,
        "summaries": data.summaries,
    }
    lists = {name: [_fields(record) for record in found] for name, found in records.items()}
    rest = {
        "state": data.state,
        "opening": None if data.opening is None else _fields(data.opening),
        "waiting": waiting or [],
    }
    person = {"user_id": user_id, "profile": data.profile} | lists | rest
    return json.dumps(person, ensure_ascii=False, indent=2)


def person_from_json(text: str) -> tuple[str, PersonData]:
    """Decode what ``person_to_json`` returned: the user id, and what the store kept.

    Raises:
        ValueError: it is not such a text.
    """
    try:
        person = json.loads(text)
        return person["user_id"], PersonData(
            profile=person["profile"],
            versions=[ProfileVersion(**_times(fields)) for fields in person["versions"]],
            turns=[Turn(**_times(fields)) for fields in person["turns"]],
            memories=[Memory(**_times(fields)) for fields in person["memories"]],
            summaries=[Summary(**_times(fields)) for fields in person["summaries"]],
            state=person["state"],
            opening=Opening(**_times(person["opening"])) if person.get("opening") else None,
        )
    except (TypeError, LookupError):
        raise ValueError("not an export of a person") from None


def _fields(record: Any) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(record).items() if name not in _OF_A_WRITE}
    return fields | {"at": record.at.isoformat()}


def _times(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"at": datetime.fromisoformat(fields["at"])}
