"""A user's state as JSON text, and back. It is a JSON object: whatever the companion wants to know next time."""

import json
from typing import Any

from .base import storable


def state_to_json(state: dict[str, Any]) -> str:
    """`state` as JSON that any database can keep: its texts are made `storable`, tuples become lists.

    Raises TypeError for what JSON has no form for (a key that is no text, a datetime), ValueError for NaN, infinity,
    and an object that contains itself or is nested hundreds deep.
    """
    if not isinstance(state, dict):
        raise TypeError(f"a state is a dict, not {type(state).__name__}")
    try:
        return json.dumps(_storable(state), ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ValueError("the state is nested too deeply") from None


def state_from_json(text: str) -> dict[str, Any]:
    """The state that was made into `text`. Raises ValueError when that is no JSON object."""
    state = json.loads(text)
    if not isinstance(state, dict):
        raise ValueError("a state is a JSON object")
    return state


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):  # json would make texts of them, two may become one
            raise TypeError("the keys of a state are texts")
        return {storable(key): _storable(item) for key, item in value.items()}
    return value
