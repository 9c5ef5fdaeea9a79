"""Who somebody says he is: participants' identities, job metadata and ids in keys, usable and not."""

from __future__ import annotations

import json
import string
from random import Random
from typing import Any, Final
from unittest.mock import MagicMock
from uuid import UUID

from tests.isolation.texts import hostile_text, hostile_value

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


def hostile_identity(mark: str, draw: Random) -> Any:
    """Anything that may stand where a participant's identity is expected."""
    kind = draw.random()
    if kind < 0.25:
        return draw.choice(NAMED)
    if kind < 0.26:
        return MagicMock(name=mark)
    if kind < 0.45:
        return "".join(draw.choice(_WORDS) for _ in range(draw.randrange(1, 5)))
    if kind < 0.6:
        return _nearly_uuid(draw)
    if kind < 0.8:
        usable = "".join(draw.choice(sorted(SAFE)) for _ in range(draw.choice((1, 5, 36, 127, 128))))
        return usable if draw.random() < 0.5 else usable[:-1] + draw.choice(string.printable)
    return hostile_text(mark, draw)


def _nearly_uuid(draw: Random) -> str:
    text = str(UUID(int=draw.getrandbits(128)))
    text = draw.choice(
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
    at = draw.randrange(len(text))
    return text if draw.random() < 0.6 else text[:at] + draw.choice(("*", "", "g", "\n", "٣")) + text[at + 1 :]


def who_it_is(identity: Any) -> str | None:
    """The user id an identity stands for; None for nobody. Written down anew, not taken from the product."""
    if not isinstance(identity, str) or not 0 < len(identity) <= 128 or not set(identity) <= SAFE:
        return None
    bare = identity[5:] if identity[:5].lower() == "user-" else identity
    groups = bare.split("-")
    if [len(group) for group in groups] == [8, 4, 4, 4, 12] and set("".join(groups)) <= set(_HEX):
        return bare.lower()
    return identity


def hostile_metadata(mark: str, draw: Random) -> tuple[Any, tuple[bool, Any]]:
    """A job's metadata; and whether it names a user, and the identity it names."""
    kind = draw.random()
    if kind < 0.5:
        identity = _plain(hostile_identity(mark, draw))
        content = {"operator": True, "caller": "other", "user_id": identity, "note": hostile_text(mark, draw)}
        return json.dumps(content, ensure_ascii=draw.random() < 0.5), (True, identity)
    if kind < 0.6:  # the last of two wins, for everybody who asks
        return f'{{"user_id": "me", "user_id": "{mark}"}}', (True, mark)
    if kind < 0.7:
        return draw.choice((None, 7, b"{}", MagicMock(), ["me"], {"user_id": "me"}, "[" * 100_000, '{"a":' * 50_000)), (
            False,
            None,
        )
    if kind < 0.85:
        value = hostile_value(mark, draw)
        text = json.dumps(value)
        named = isinstance(value, dict) and "user_id" in value
        return text, (named, value["user_id"] if isinstance(value, dict) and named else None)
    text = hostile_text(mark, draw)
    content = _loaded(text)
    named = isinstance(content, dict) and "user_id" in content
    return text, (named, content["user_id"] if named else None)


def _plain(identity: Any) -> Any:
    """``identity`` as JSON can carry it."""
    try:
        return json.loads(json.dumps(identity))
    except (TypeError, ValueError):
        return None


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
