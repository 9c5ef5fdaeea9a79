"""A user's state as JSON text, and back. A state is a JSON object."""

import json
from typing import Any

from ..text import storable_json


def state_to_json(state: dict[str, Any]) -> str:
    """Encode a state as JSON that any database can store: its texts are made ``storable``, tuples become lists.

    Args:
        state: the state.

    Returns:
        The JSON text.

    Raises:
        TypeError: it holds what JSON has no form for, such as a key that is not a string, or a datetime.
        ValueError: it holds NaN or infinity, contains itself, or is nested hundreds deep.
    """
    if not isinstance(state, dict):
        raise TypeError(f"a state is a dict, not {type(state).__name__}")
    try:
        return json.dumps(storable_json(state), ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ValueError("the state is nested too deeply") from None


def state_from_json(text: str) -> dict[str, Any]:
    """Decode a state.

    Args:
        text: what ``state_to_json`` returned.

    Returns:
        The state.

    Raises:
        ValueError: the text is not a JSON object.
    """
    state = json.loads(text)
    if not isinstance(state, dict):
        raise ValueError("a state is a JSON object")
    return state
