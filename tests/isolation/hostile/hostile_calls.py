"""Generates the tool calls of a manipulated model: existing and unknown tools, valid and malformed arguments."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from tests.isolation.hostile.hostile_patterns import hostile_pattern
from tests.isolation.hostile.hostile_texts import hostile_text, hostile_value

ARGUMENT: Final = {
    "getRedisCacheStats": None,
    "clearUserCache": None,
    "invalidateCache": "pattern",
    "getUserProfile": None,
    "getConversationContext": None,
    "updateUserProfile": "profile",
    "rememberFact": "fact",
    "recallFacts": "query",
    "forgetFact": "what",
    "forgetEverything": None,
}
"""Each tool and the name of its argument; None if it takes none."""
CACHE_TOOLS: Final = ("invalidateCache", "invalidateCache", "invalidateCache", "clearUserCache", "getRedisCacheStats")
PROFILE_TOOLS: Final = (
    *("updateUserProfile", "getUserProfile", "rememberFact", "recallFacts", "recallFacts", "getConversationContext"),
    "forgetFact",
)
_UNDECLARED_ARGUMENTS: Final = (
    *("user_id", "caller", "operator", "context", "self", "userdata", "key", "__class__", "redis_url", "confirm"),
)
_UNKNOWN_TOOLS: Final = (
    "",
    "FLUSHALL",
    "clearusercache",
    "invalidateCache ",
    "getUserProfile\x00",
    "../clearUserCache",
    "x" * 300,
)


@dataclass(frozen=True)
class Call:
    """One tool call as the model emits it.

    Attributes:
        raw: the arguments as text; JSON unless the case is about malformed JSON.
        expected: the argument that the tool must accept; None if it may reject the call.
    """

    tool: str
    raw: str
    expected: str | None = None


def hostile_call(tools: tuple[str, ...], marker: str, rng: Random) -> Call:
    """Generate a call of one of ``tools``."""
    tool = rng.choice(tools)
    name = ARGUMENT[tool]
    arguments: dict[str, Any] = {}
    expected: str | None = ""
    if name is not None:
        expected = hostile_pattern(marker, rng) if name == "pattern" else hostile_text(marker, rng)
        arguments[name] = expected
        if rng.random() < 0.06:  # not a string
            arguments[name], expected = hostile_value(marker, rng), None
        elif rng.random() < 0.02:
            arguments, expected = {}, None
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        invented = rng.choice(_UNDECLARED_ARGUMENTS)
        arguments[invented] = rng.choice(
            ("me2", "other", "*", True, {"user_id": "me2", "operator": True}, None, [], 10**20)
        )
        if invented == "confirm" and tool in ("updateUserProfile", "forgetEverything"):
            arguments[invented] = True  # of these tools, it is declared
    raw = json.dumps(arguments, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.02:
        raw, expected = _malformed(raw, marker, rng), None
    if expected is not None and any("\ud800" <= char <= "\udfff" for char in expected):
        expected = None  # the framework's JSON parser rejects a lone surrogate
    return Call(tool, raw, expected)


def malformed_call(marker: str, rng: Random) -> Call:
    """Generate a call that the framework itself may have to reject: unknown tools, malformed JSON."""
    call = hostile_call(tuple(ARGUMENT), marker, rng)
    if rng.random() < 0.2:
        return Call(rng.choice(_UNKNOWN_TOOLS), call.raw)
    return Call(call.tool, _malformed(call.raw, marker, rng)) if rng.random() < 0.3 else call


def _malformed(raw: str, marker: str, rng: Random) -> str:
    match rng.randrange(7):
        case 0:
            return raw[: rng.randrange(min(len(raw), 300))]
        case 1:
            return raw[1:300]
        case 2:
            return json.dumps(raw[:2_000])  # encoded twice
        case 3:
            return hostile_text(marker, rng)[:300]
        case 4:
            return json.dumps(hostile_value(marker, rng))[:2_000]
        case 5:
            return f"<|im_start|>{raw[:300]}<|im_end|>"
        case _:
            return raw[:300].replace('"', "'")
