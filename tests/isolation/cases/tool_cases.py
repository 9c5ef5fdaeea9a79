"""Cases over the tools, called as the framework calls them: by valid callers, an operator and unknown callers."""

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
from companion.memory.profile_change import rewritten
from companion.text import storable
from tests.isolation.fixture_data import CALLERS, OPERATOR, marker
from tests.isolation.hostile.hostile_calls import CACHE_TOOLS, PROFILE_TOOLS, Call, hostile_call
from tests.isolation.hostile.hostile_identities import hostile_identity, is_key_part
from tests.isolation.hostile.hostile_patterns import usable
from tests.isolation.runner import BATCH, Runner, read_json
from tests.tools.conversation import Person, Userdata
from tools import CacheTools, ProfileTools
from tools.profile_tools import CONFIRM_FROM, MAX_TEXT

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
    "getUserProfile": (
        {"success", "profile", "facts"},
        {"success", "profile", "facts", "shown"},
        {"success", "message"},
    ),
    "getConversationContext": ({"success", "summary", "conversations", "stage"}, {"success", "message"}),
    "updateUserProfile": (
        *({"success", "message", "profile"}, {"success", "message"}, {"success", "message", "would_remove"}),
    ),
    "rememberFact": ({"success", "message"},),
    "recallFacts": ({"success", "facts"}, {"success", "facts", "shown"}, {"success", "message"}),
    "forgetFact": (
        *({"success", "message", "removed", "profile"}, {"success", "message"}),
        *({"success", "message", "candidates"}, {"success", "message", "candidates", "shown"}),
    ),
    "forgetEverything": ({"success", "message"},),
}


@contextmanager
def cached_schemas() -> Iterator[None]:
    """Memoise tool schemas: the framework rebuilds them for every call, which takes longer than the call."""
    once = lru_cache(utils.function_arguments_to_pydantic_model)
    with patch.object(utils, "function_arguments_to_pydantic_model", once):
        yield


class FakeRunContext(RunContext[Any]):
    """A run context with the given userdata."""

    def __init__(self, userdata: Any) -> None:
        self._session: Any = SimpleNamespace(userdata=userdata, current_agent=None)


@lru_cache(maxsize=8)
def arguments(call: Call) -> dict[str, Any] | None:
    """The arguments as the framework parses them; None if it rejects them."""
    try:
        read = parse_function_arguments(call.raw)
        prepare_function_arguments(fnc=TOOLS[call.tool], json_arguments=read, call_ctx=FakeRunContext(None))
    except (ValueError, ToolError, TypeError):  # TypeError: a lone surrogate
        return None
    return read


async def answer(call: Call, given: dict[str, Any], userdata: Any) -> dict[str, Any]:
    """Call the tool and parse its reply. Exceptions of the tool propagate."""
    tool = TOOLS[call.tool]
    parts, named = prepare_function_arguments(fnc=tool, json_arguments=given, call_ctx=FakeRunContext(userdata))
    text = await tool(*parts, **named)
    llm.FunctionCallOutput(name=call.tool, call_id="1", output=text, is_error=False)
    return read_json(text)


async def cache_tools(runner: Runner, rng: Random, count: int) -> int:
    """Cache tools remove exactly the caller's keys that match, and no other user's key."""
    return await _run_batches(runner, rng, count, CALLERS, _cache_tool_case)


async def profile_tools(runner: Runner, rng: Random, count: int) -> int:
    """Profile tools store and return only the caller's data."""
    return await _run_batches(runner, rng, count, CALLERS, _profile_tool_case)


async def operators(runner: Runner, rng: Random, count: int) -> int:
    """An operator's pattern reaches every user's keys, and reserved keys only if it begins with a reserved prefix."""
    return await _run_batches(runner, rng, count, (OPERATOR,), _operator_case)


async def unknown_callers(runner: Runner, rng: Random, count: int) -> int:
    """An unknown caller reads and changes nothing, whatever the session's userdata contains."""
    return await _run_batches(runner, rng, count, (None,), _unknown_caller_case)


async def _run_batches(runner: Runner, rng: Random, count: int, users: tuple[Any, ...], case: Any) -> int:
    done = 0
    while done < count and not runner.timed_out:
        user = rng.choice(users)
        large = rng.random() < 0.3  # treat the keyspace as large: keys are found through the user index
        with patch.object(invalidation, "SMALL", 0 if large else 2_000):
            async with runner.acting_as(user):
                if rng.random() < 0.05:  # invalidations that fail now are redelivered
                    runner.kill_connections()
                for _ in range(min(BATCH, count - done)):
                    await case(runner, user, rng)
                    done += 1
    return done


async def _execute(runner: Runner, user: str | None, call: Call, userdata: Any) -> dict[str, Any] | None:
    """Execute the call and check the reply: documented shape, no other user's data, no leaked caller context.

    Returns:
        The reply; None if the call was rejected or crashed.
    """
    given = arguments(call)
    if given is None:
        runner.check(call.expected is None, user, call, "refused")
        return None
    try:
        reply = await answer(call, given, userdata)
    except Exception as problem:
        runner.record_crash(user, call, problem)
        return None
    shapes = (*_SHAPES[call.tool], {"success", "profile", "facts", "message"})
    runner.check(set(reply) in shapes, user, call, "shape")
    runner.check_shown(user, repr(reply), call)
    runner.check(current_caller() is None, user, call, "the caller context leaks")
    return reply


def _pattern(call: Call) -> str | None:
    """The pattern that must be executed; None if the call has no usable one."""
    given = arguments(call) if call.tool == "invalidateCache" else None
    pattern = given and given.get("pattern")
    return pattern if isinstance(pattern, str) and usable(pattern) else None


async def _cache_tool_case(runner: Runner, user: str, rng: Random) -> None:
    data, call = runner.data, hostile_call(CACHE_TOOLS, marker(user), rng)
    pattern = f"user:{user}:*" if call.tool == "clearUserCache" else _pattern(call)
    # One pipeline: restore the user's keys, and let Redis say which of them match.
    *_, own, matched = data.pipeline(
        [*data.user_commands(user), ("KEYS", f"user:{user}:*"), ("KEYS", pattern or "nothing")]
    )
    removed = set(own) & set(matched)
    reply = await _execute(runner, user, call, Userdata(Caller(user)))
    runner.check_unchanged(user, call)
    if reply is None or call.tool == "getRedisCacheStats":
        return
    if runner.undisturbed:
        runner.check(reply["success"] is (pattern is not None), user, call, reply["message"])
        runner.check(reply["deleted_keys"] == len(removed), user, call, f"{reply['deleted_keys']} of {len(removed)}")
        remaining = data.matching(f"user:{user}:*")
        runner.check(remaining == set(own) - removed, user, call, f"{sorted(remaining ^ (set(own) - removed))[:3]}")


async def _operator_case(runner: Runner, user: str, rng: Random) -> None:
    data, call = runner.data, hostile_call(CACHE_TOOLS[:1], marker(user), rng)
    pattern = _pattern(call)
    before = data.dump()
    matched = data.matching(pattern) if pattern else set()
    literal = pattern is not None and pattern.startswith(RESERVED)
    removed = {key for key in matched if literal or not key.startswith(RESERVED)}
    removed |= {f"{kind}:{{{key}}}" for key in removed for kind in ("lease", "stale")} & before.keys()
    reply = await _execute(runner, user, call, Userdata(Caller(user, operator=True)))
    after = data.dump()
    if reply is not None and pattern and not reply["success"]:
        await runner.settle()
        after = data.dump()
    expected = {key: value for key, value in before.items() if key not in removed} if reply is not None else before
    differs = {key for key in after.keys() | expected.keys() if after.get(key) != expected.get(key)}
    if reply is not None:  # with the last key of a user, their index may go
        differs -= {index for index in before if index.startswith("index:") and pattern == f"user:{index[7:-1]}:*"}
    if differs:
        runner.result.changes.append(f"operator {call!r:.160}: {sorted(differs)[:5]}")
    data.load()


async def _profile_tool_case(runner: Runner, user: str, rng: Random) -> None:
    call = hostile_call(PROFILE_TOOLS, marker(user), rng)
    reply = await _execute(runner, user, call, Userdata(Caller(user)))
    runner.check_unchanged(user, call)
    if reply is None:
        return
    if call.tool == "updateUserProfile":
        given = arguments(call) or {}
        text, known = given.get("profile") or "", runner.data.profiles[user]
        fits = bool(text.strip()) and len(text) <= MAX_TEXT
        confirmed = bool(given.get("confirm")) or len(rewritten(known, storable(text)).forgotten) < CONFIRM_FROM
        runner.check(reply["success"] is (fits and confirmed), user, call, reply["message"])
        if fits and confirmed:
            runner.data.profiles[user] = storable(text.strip())
    elif call.tool == "forgetFact":
        runner.data.profiles[user] = reply.get("profile", runner.data.profiles[user])
    elif call.tool == "getUserProfile":
        expected = runner.data.profiles[user]
        runner.check(reply["profile"] == expected, user, call, f"{reply['profile']!r:.60} instead of {expected!r:.60}")


async def _unknown_caller_case(runner: Runner, _: None, rng: Random) -> None:
    call = hostile_call((*CACHE_TOOLS, *PROFILE_TOOLS, "forgetEverything"), marker("me"), rng)
    reply = await _execute(runner, None, call, _unusable_userdata(rng))
    runner.check_unchanged(None, call)
    if reply is not None and call.tool != "getRedisCacheStats":
        runner.check(reply["success"] is False, None, call, "executed for an unknown caller")


def _unusable_userdata(rng: Random) -> Any:
    """Userdata that names no usable caller."""
    identity = hostile_identity(marker("me"), rng)
    if is_key_part(identity):
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
    return rng.choice(options)
