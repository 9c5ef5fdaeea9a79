"""Tools called as the framework calls them, by valid callers, an operator, and nobody one knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from random import Random
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import MagicMock, patch

from livekit.agents import RunContext, ToolError, llm
from livekit.agents.llm import utils
from livekit.agents.llm.utils import parse_function_arguments, prepare_function_arguments

from cache.invalidation import invalidator as invalidation
from companion import Caller, current_caller
from companion.store.base import storable
from tests.isolation.calls import CACHE_TOOLS, PROFILE_TOOLS, Call, hostile_call
from tests.isolation.identities import hostile_identity, who_it_is
from tests.isolation.patterns import usable
from tests.isolation.stage import BATCH, Stage, read_json
from tests.isolation.town import CALLERS, OPERATOR, mark
from tests.tools.conversation import Person, Userdata
from tools import CacheTools, ProfileTools
from tools.profile_tools import MAX_TEXT

TOOLS: Final = {tool.info.name: tool for toolset in (CacheTools(), ProfileTools()) for tool in toolset.tools}
RESERVED: Final = ("lock:", "system:", "lease:", "stale:", "index:")
_RESULT: Final = {"success", "deleted_keys", "message"}
_STATS: Final = {
    *("enabled", "connected", "hit_rate", "cache_hits", "cache_misses", "connection_errors", "redis_memory", "status"),
}
_SHAPES: Final[dict[str, tuple[set[str], ...]]] = {
    "getRedisCacheStats": (_STATS,),
    "clearUserCache": (_RESULT,),
    "invalidateCache": (_RESULT,),
    "getUserProfile": ({"success", "profile", "facts"}, {"success", "message"}),
    "getConversationContext": ({"success", "summary", "conversations", "stage"}, {"success", "message"}),
    "updateUserProfile": ({"success", "message"},),
    "rememberFact": ({"success", "message"},),
    "recallFacts": ({"success", "facts"}, {"success", "message"}),
}


@contextmanager
def schemas_made_once() -> Iterator[None]:
    """The framework makes the schema of a tool anew for every call, which takes longer than the call."""
    once = lru_cache(utils.function_arguments_to_pydantic_model)
    with patch.object(utils, "function_arguments_to_pydantic_model", once):
        yield


class Chair(RunContext[Any]):
    """The run context of a session in which somebody sits."""

    def __init__(self, userdata: Any) -> None:
        self._session: Any = SimpleNamespace(userdata=userdata, current_agent=None)


@lru_cache(maxsize=8)
def arguments(call: Call) -> dict[str, Any] | None:
    """What the framework makes of the arguments; None if it refuses them."""
    try:
        read = parse_function_arguments(call.raw)
        prepare_function_arguments(fnc=TOOLS[call.tool], json_arguments=read, call_ctx=Chair(None))
    except (ValueError, ToolError, TypeError):  # the last one for half a character
        return None
    return read


async def answer(call: Call, given: dict[str, Any], userdata: Any) -> dict[str, Any]:
    """What the tool says. Raises whatever comes of it."""
    tool = TOOLS[call.tool]
    parts, named = prepare_function_arguments(fnc=tool, json_arguments=given, call_ctx=Chair(userdata))
    text = await tool(*parts, **named)
    llm.FunctionCallOutput(name=call.tool, call_id="1", output=text, is_error=False)
    return read_json(text)


async def cache_tools(stage: Stage, draw: Random, count: int) -> int:
    """The cache tools do to the caller's own keys what the pattern says, and nothing to anybody else's."""
    return await _in_turn(stage, draw, count, CALLERS, _one_of_cache_tools)


async def profile_tools(stage: Stage, draw: Random, count: int) -> int:
    """The profile tools keep and tell what is the caller's."""
    return await _in_turn(stage, draw, count, CALLERS, _one_of_profile_tools)


async def operators(stage: Stage, draw: Random, count: int) -> int:
    """An operator's pattern means everybody's keys, and those of the layer only if it names them literally."""
    return await _in_turn(stage, draw, count, (OPERATOR,), _one_of_operators)


async def nobodies(stage: Stage, draw: Random, count: int) -> int:
    """Whoever is not known touches nothing, whatever the session says of them."""
    return await _in_turn(stage, draw, count, (None,), _one_of_nobodies)


async def _in_turn(stage: Stage, draw: Random, count: int, users: tuple[Any, ...], one: Any) -> int:
    done = 0
    while done < count and not stage.over:
        user = draw.choice(users)
        large = draw.random() < 0.3  # the keyspace counts as large: one user's keys are found through the index
        with patch.object(invalidation, "SMALL", 0 if large else 2_000):
            async with stage.turn_of(user):
                if draw.random() < 0.05:  # a connection that is lost in between; what was not done then is made up for
                    stage.lose_connections()
                for _ in range(min(BATCH, count - done)):
                    await one(stage, user, draw)
                    done += 1
    return done


async def _carried_out(stage: Stage, user: str | None, call: Call, userdata: Any) -> dict[str, Any] | None:
    """Do it, and see that the answer has the documented shape and that nothing of others is in it."""
    given = arguments(call)
    if given is None:
        stage.expect(call.told is None, user, call, "refused")
        return None
    try:
        said = await answer(call, given, userdata)
    except Exception as problem:
        stage.crashed(user, call, problem)
        return None
    stage.expect(
        set(said) in _SHAPES[call.tool] or set(said) == {"success", "profile", "facts", "message"}, user, call, "shape"
    )
    stage.shows_nothing(user, repr(said), call)
    stage.expect(current_caller() is None, user, call, "a caller is left behind")
    return said


def _pattern(call: Call) -> str | None:
    """The pattern that is to be carried out; None if there is none."""
    given = arguments(call) if call.tool == "invalidateCache" else None
    pattern = given and given.get("pattern")
    return pattern if isinstance(pattern, str) and usable(pattern) else None


async def _one_of_cache_tools(stage: Stage, user: str, draw: Random) -> None:
    town, call = stage.town, hostile_call(CACHE_TOOLS, mark(user), draw)
    pattern = f"user:{user}:*" if call.tool == "clearUserCache" else _pattern(call)
    # In one go: everything of his is there again, and what Redis says the pattern means.
    *_, his, meant = town.many([*town.belongings(user), ("KEYS", f"user:{user}:*"), ("KEYS", pattern or "nothing")])
    gone = set(his) & set(meant)
    said = await _carried_out(stage, user, call, Userdata(Caller(user)))
    stage.unchanged(user, call)
    if said is None or call.tool == "getRedisCacheStats":
        return
    if stage.calm:
        stage.expect(said["success"] is (pattern is not None), user, call, said["message"])
        stage.expect(said["deleted_keys"] == len(gone), user, call, f"{said['deleted_keys']} of {len(gone)}")
        left = town.names(f"user:{user}:*")
        stage.expect(left == set(his) - gone, user, call, f"{sorted(left ^ (set(his) - gone))[:3]}")


async def _one_of_operators(stage: Stage, user: str, draw: Random) -> None:
    town, call = stage.town, hostile_call(CACHE_TOOLS[:1], mark(user), draw)
    pattern = _pattern(call)
    before = town.details()
    meant = town.names(pattern) if pattern else set()
    literal = pattern is not None and pattern.startswith(RESERVED)
    gone = {key for key in meant if literal or not key.startswith(RESERVED)}
    gone |= {f"{kind}:{{{key}}}" for key in gone for kind in ("lease", "stale")} & before.keys()
    said = await _carried_out(stage, user, call, Userdata(Caller(user, operator=True)))
    after = town.details()
    if said is not None and pattern and not said["success"]:
        await stage.rest()
        after = town.details()
    right = {key: value for key, value in before.items() if key not in gone} if said is not None else before
    if after != right:
        differs = [key for key in after.keys() | right.keys() if after.get(key) != right.get(key)]
        stage.verdict.changes.append(f"operator {call!r:.160}: {sorted(differs)[:5]}")
    town.fill()


async def _one_of_profile_tools(stage: Stage, user: str, draw: Random) -> None:
    call = hostile_call(PROFILE_TOOLS, mark(user), draw)
    said = await _carried_out(stage, user, call, Userdata(Caller(user)))
    stage.unchanged(user, call)
    if said is None:
        return
    if call.tool == "updateUserProfile":
        text = (arguments(call) or {})["profile"]
        fits = bool(text.strip()) and len(text) <= MAX_TEXT
        stage.expect(said["success"] is fits, user, call, said["message"])
        if fits:
            stage.town.profiles[user] = storable(text.strip())
    elif call.tool == "getUserProfile":
        right = stage.town.profiles[user]
        stage.expect(said["profile"] == right, user, call, f"{said['profile']!r:.60} instead of {right!r:.60}")


async def _one_of_nobodies(stage: Stage, _: None, draw: Random) -> None:
    call = hostile_call(CACHE_TOOLS + PROFILE_TOOLS, mark("me"), draw)
    said = await _carried_out(stage, None, call, _nobody(draw))
    stage.unchanged(None, call)
    if said is not None and call.tool != "getRedisCacheStats":
        stage.expect(said["success"] is False, None, call, "done for nobody")


def _nobody(draw: Random) -> Any:
    """The userdata of a session in which nobody usable sits."""
    identity = hostile_identity(mark("me"), draw)
    if who_it_is(identity) is not None:
        identity = "user-*"
    options = (
        *(
            None,
            {},
            "me",
            MagicMock(),
            Userdata(None),
            Userdata("me"),
            Userdata(MagicMock()),
            SimpleNamespace(caller=MagicMock()),
        ),
        *(Userdata(Person(identity)), Userdata(Person(identity, operator=True)), Userdata({"user_id": "me"})),
        SimpleNamespace(caller=SimpleNamespace(user_id=identity, operator=True)),
    )
    return draw.choice(options)
