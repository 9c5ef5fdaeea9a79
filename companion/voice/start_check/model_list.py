"""The models that a server lists, where it lists any."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

import httpx

from .refusal import Server

_TIMEOUT: Final = 3.0  # seconds
_SHOWN: Final = 12
_LONGEST: Final = 80  # characters
_LATEST: Final = ":latest"  # as Ollama lists a name without a tag


@dataclass(frozen=True, slots=True)
class KnownModels:
    """What a server lists.

    Attributes:
        has: whether the model that was asked for is among them.
        names: some of them, the most similar first, and how many more there are.
    """

    has: bool
    names: tuple[str, ...]


async def known_models(server: Server, model: str) -> KnownModels | None:
    """The models that a server lists at ``/models``; None where it lists none.

    Args:
        server: the server.
        model: the name that was asked for.
    """
    if server.models != "openai":  # LiveKit Inference has no list
        return None
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT) as client:
            response = await client.get(f"{server.url}/models", headers={"Authorization": f"Bearer {server.key}"})
            names = [str(each["id"]) for each in response.raise_for_status().json()["data"]]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError):
        return None
    short = sorted({name.removesuffix(_LATEST) for name in names if name.isprintable() and len(name) <= _LONGEST})
    close = get_close_matches(model, short, n=5, cutoff=0.5)
    shown = list(dict.fromkeys([*close, *short]))[: _SHOWN if len(short) <= _SHOWN else len(close) or _SHOWN]
    more = [f"{len(short) - len(shown)} more"] if len(shown) < len(short) else []
    return KnownModels(model in names or f"{model}{_LATEST}" in names, (*shown, *more))
