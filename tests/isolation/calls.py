"""What a model that was talked round calls: the right tools and others, with whatever it was told to pass."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from tests.isolation.patterns import hostile_pattern
from tests.isolation.texts import hostile_text, hostile_value

ARGUMENT: Final = {
    "getRedisCacheStats": None,
    "clearUserCache": None,
    "invalidateCache": "pattern",
    "getUserProfile": None,
    "getConversationContext": None,
    "updateUserProfile": "profile",
    "rememberFact": "fact",
    "recallFacts": "query",
}
"""The tools and what each is given."""
CACHE_TOOLS: Final = ("invalidateCache", "invalidateCache", "invalidateCache", "clearUserCache", "getRedisCacheStats")
PROFILE_TOOLS: Final = (
    *("updateUserProfile", "getUserProfile", "rememberFact", "recallFacts", "recallFacts", "getConversationContext"),
)
_INVENTED: Final = (
    *("user_id", "caller", "operator", "context", "self", "userdata", "key", "__class__", "redis_url", "confirm"),
)
_NO_TOOL: Final = (
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
    """One call, as it comes from the model.

    Attributes:
        raw: the arguments, JSON or meant to be.
        told: the argument as it is if the tool is bound to be carried out with it; None where it may be refused.
    """

    tool: str
    raw: str
    told: str | None = None


def hostile_call(tools: tuple[str, ...], mark: str, draw: Random) -> Call:
    """A call of one of ``tools``."""
    tool = draw.choice(tools)
    name = ARGUMENT[tool]
    arguments: dict[str, Any] = {}
    told: str | None = ""
    if name is not None:
        told = hostile_pattern(mark, draw) if name == "pattern" else hostile_text(mark, draw)
        arguments[name] = told
        if draw.random() < 0.06:  # something else than a text
            arguments[name], told = hostile_value(mark, draw), None
        elif draw.random() < 0.02:
            arguments, told = {}, None
    for _ in range(draw.choice((0, 0, 0, 1, 3))):
        invented = draw.choice(_INVENTED)
        arguments[invented] = draw.choice(
            ("me2", "other", "*", True, {"user_id": "me2", "operator": True}, None, [], 10**20)
        )
    raw = json.dumps(arguments, ensure_ascii=draw.random() < 0.5)
    if draw.random() < 0.02:
        raw, told = _broken(raw, mark, draw), None
    if told is not None and any("\ud800" <= char <= "\udfff" for char in told):
        told = None  # the framework's own reader of JSON takes offence at half a character
    return Call(tool, raw, told)


def odd_call(mark: str, draw: Random) -> Call:
    """A call of anything, for a conversation in which the framework deals with it."""
    call = hostile_call(tuple(ARGUMENT), mark, draw)
    if draw.random() < 0.2:
        return Call(draw.choice(_NO_TOOL), call.raw)
    return Call(call.tool, _broken(call.raw, mark, draw)) if draw.random() < 0.3 else call


def _broken(raw: str, mark: str, draw: Random) -> str:
    match draw.randrange(7):
        case 0:
            return raw[: draw.randrange(min(len(raw), 300))]
        case 1:
            return raw[1:300]
        case 2:
            return json.dumps(raw[:2_000])  # encoded twice
        case 3:
            return hostile_text(mark, draw)[:300]
        case 4:
            return json.dumps(hostile_value(mark, draw))[:2_000]
        case 5:
            return f"<|im_start|>{raw[:300]}<|im_end|>"
        case _:
            return raw[:300].replace('"', "'")
