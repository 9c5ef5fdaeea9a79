"""Generates participant identities, job metadata and key parts, valid and invalid, with the expected user id."""

from __future__ import annotations

import json
import re
import string
from hashlib import sha256
from random import Random
from typing import Any, Final
from unicodedata import category, normalize
from unittest.mock import MagicMock
from urllib.parse import quote
from uuid import UUID

from companion.identity.placeholders import is_placeholder
from tests.isolation.hostile.hostile_texts import hostile_text, hostile_value

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
_ALSO: Final = " !#$%&'()+,-./:;=@\\_|~"
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


def is_key_part(value: Any) -> bool:
    """Whether a value can be a part of a key, and so a user id: an oracle independent of the product."""
    return isinstance(value, str) and 0 < len(value) <= 128 and set(value) <= SAFE


def expected_user_id(identity: Any) -> str | None:
    """The user id that an identity must resolve to, None if it is invalid: an oracle that encodes in its own way."""
    if not isinstance(identity, str) or is_placeholder(identity):  # placeholders have tests of their own
        return None
    text = normalize("NFC", identity)
    if not 0 < len(text) <= 1024 or text.strip(" ") != text:
        return None
    if any(category(char)[0] not in "LMN" and char not in _ALSO for char in text):
        return None
    bare = text[5:] if text[:5].lower() == "user-" else text
    groups = bare.split("-")
    if [len(group) for group in groups] == [8, 4, 4, 4, 12] and set("".join(groups)) <= set(_HEX):
        return bare.lower()
    if is_key_part(text) and text[:2] != "~=":
        return text
    encoded = "~=" + re.sub("%(..)", lambda byte: f"={byte[1].lower()}", quote(text, safe="@+"))
    return encoded if len(encoded) <= 128 else f"~==sha256={sha256(text.encode()).hexdigest()}"


def hostile_metadata(marker: str, rng: Random) -> tuple[Any, tuple[bool, Any]]:
    """Generate a job's metadata.

    Returns:
        The metadata; and the expected parse: whether it names a user, and the identity it names.
    """
    kind = rng.random()
    if kind < 0.5:
        identity = _plain(hostile_identity(marker, rng))
        expected = str(identity) if type(identity) is int else identity
        content = {"operator": True, "caller": "other", "user_id": identity, "note": hostile_text(marker, rng)}
        return json.dumps(content, ensure_ascii=rng.random() < 0.5), (True, expected)
    if kind < 0.6:  # which of the two is meant is not known
        return f'{{"user_id": "me", "user_id": "{marker}"}}', (True, None)
    if kind < 0.7:
        return rng.choice((None, 7, b"{}", MagicMock(), ["me"], {"user_id": "me"}, "[" * 100_000, '{"a":' * 50_000)), (
            False,
            None,
        )
    text = json.dumps(hostile_value(marker, rng)) if kind < 0.85 else hostile_text(marker, rng)
    content = _loaded(text)
    if isinstance(content, dict) and "user_id" in content:
        user_id = content["user_id"]
        return text, (True, str(user_id) if type(user_id) is int else user_id)
    if isinstance(content, dict):
        return text, (_holds_user(content), None)
    return text, ("user_id" in text, None)


def _holds_user(content: Any) -> bool:
    """Whether an object names a user, below its top or in an encoded text."""
    if isinstance(content, str):
        return content.lstrip()[:1] in ("{", "[", '"') and "user_id" in content
    if isinstance(content, dict):
        return any(re.sub(r"\W", "", key) == "user_id" or _holds_user(each) for key, each in content.items())
    return isinstance(content, list) and any(map(_holds_user, content))


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
