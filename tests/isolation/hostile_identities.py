"""Generates participant identities, job metadata and key parts, valid and invalid, with the expected user id."""

from __future__ import annotations

import json
import string
from random import Random
from typing import Any, Final
from unittest.mock import MagicMock
from uuid import UUID

from tests.isolation.hostile_texts import hostile_text, hostile_value

SAFE: Final = frozenset(string.ascii_letters + string.digits + "._@+=~-")
NAMED: Final[tuple[Any, ...]] = (
    *(
        "user-*",
        "../x",
        "x" * 10_000,
        "\U0001f600",
        "",
        " ",
        "me:*",
        "user:me",
        "m?",
        "[me]",
        "me\n",
        "me\x00",
        "\ud800",
    ),
    *("*", "me\r\nFLUSHALL", "{me}", "me}", "../../etc/passwd", "%2e%2e", "me/../other", "ｍｅ", "mе", "x" * 129),
    *(None, True, 0, 7, 1.5, float("nan"), b"me", ["me"], {"user_id": "me"}, ("me",), object(), Exception("me")),
)
_WORDS: Final = (
    "me",
    "me2",
    "other",
    "user-",
    "user:",
    "..",
    "/",
    "*",
    "?",
    "[",
    "]",
    "\\",
    ":",
    "@",
    "+",
    "\x00",
    "\n",
    "é",
    "x" * 60,
)
_HEX: Final = "0123456789abcdefABCDEF"


def hostile_identity(marker: str, rng: Random) -> Any:
    """Generate a value of any type for a participant's identity."""
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(NAMED)
    if kind < 0.26:
        return MagicMock(name=marker)
    if kind < 0.45:
        return "".join(rng.choice(_WORDS) for _ in range(rng.randrange(1, 5)))
    if kind < 0.6:
        return _near_uuid(rng)
    if kind < 0.8:
        usable = "".join(rng.choice(sorted(SAFE)) for _ in range(rng.choice((1, 5, 36, 127, 128))))
        return usable if rng.random() < 0.5 else usable[:-1] + rng.choice(string.printable)
    return hostile_text(marker, rng)


def _near_uuid(rng: Random) -> str:
    text = str(UUID(int=rng.getrandbits(128)))
    text = rng.choice(
        (
            text,
            text.upper(),
            f"user-{text}",
            f"USER-{text}",
            f"uſer-{text}",
            f"user-user-{text}",
            f"{{{text}}}",
            text.replace("-", ""),
        )
    )
    at = rng.randrange(len(text))
    return text if rng.random() < 0.6 else text[:at] + rng.choice(("*", "", "g", "\n", "٣")) + text[at + 1 :]


def expected_user_id(identity: Any) -> str | None:
    """The user id that an identity must resolve to, None if it is invalid: an oracle independent of the product."""
    if not isinstance(identity, str) or not 0 < len(identity) <= 128 or not set(identity) <= SAFE:
        return None
    bare = identity[5:] if identity[:5].lower() == "user-" else identity
    groups = bare.split("-")
    if [len(group) for group in groups] == [8, 4, 4, 4, 12] and set("".join(groups)) <= set(_HEX):
        return bare.lower()
    return identity


def hostile_metadata(marker: str, rng: Random) -> tuple[Any, tuple[bool, Any]]:
    """Generate a job's metadata.

    Returns:
        The metadata; and the expected parse: whether it names a user, and the identity it names.
    """
    kind = rng.random()
    if kind < 0.5:
        identity = _plain(hostile_identity(marker, rng))
        content = {"operator": True, "caller": "other", "user_id": identity, "note": hostile_text(marker, rng)}
        return json.dumps(content, ensure_ascii=rng.random() < 0.5), (True, identity)
    if kind < 0.6:  # duplicate keys: the last one wins in every JSON parser used
        return f'{{"user_id": "me", "user_id": "{marker}"}}', (True, marker)
    if kind < 0.7:
        return rng.choice((None, 7, b"{}", MagicMock(), ["me"], {"user_id": "me"}, "[" * 100_000, '{"a":' * 50_000)), (
            False,
            None,
        )
    if kind < 0.85:
        value = hostile_value(marker, rng)
        text = json.dumps(value)
        named = isinstance(value, dict) and "user_id" in value
        return text, (named, value["user_id"] if isinstance(value, dict) and named else None)
    text = hostile_text(marker, rng)
    content = _loaded(text)
    named = isinstance(content, dict) and "user_id" in content
    return text, (named, content["user_id"] if named else None)


def _plain(identity: Any) -> Any:
    """``identity`` after a JSON round trip; None if JSON cannot represent it."""
    try:
        return json.loads(json.dumps(identity))
    except (TypeError, ValueError):
        return None


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
