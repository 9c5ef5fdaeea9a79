"""The three cache tools, for any agent: ``Agent(tools=[CacheTools()])``.

They return JSON text with exactly the documented keys. The user id is never an argument: the caller comes from
``caller=``, from whatever keeps track of the session's caller (``find_callers_with``), or from the session's userdata.
Only an operator reaches beyond their own keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from livekit.agents import AgentSession, RunContext, function_tool, llm
from livekit.agents.llm import ToolFlag

from cache import RedisCache, get_redis_cache, keys

_AWAY = "The cache is not reachable right now, so {outcome}. I will make up for it as soon as it is back."
_DISABLED = "The cache is switched off, so there is nothing in it to {verb}."
_UNKNOWN_CALLER = "I do not know who you are, so I cannot touch anything in the cache."


class CallerLike(Protocol):
    """What the tools need to know of the caller."""

    @property
    def user_id(self) -> str:
        """The id in the caller's own keys."""
        ...

    @property
    def operator(self) -> bool:
        """Whether the caller may reach the keys of other users."""
        ...


FindCaller = Callable[[AgentSession[Any]], CallerLike | None]
"""Finds the caller of a session; None if it is unknown. Raises LookupError for a session that it does not know."""
_finders: list[FindCaller] = []


def find_callers_with(find: FindCaller) -> None:
    """Ask ``find`` for the caller of a session before its userdata is read."""
    if find not in _finders:
        _finders.append(find)


def caller_of_session(context: RunContext[Any]) -> CallerLike | None:
    """The default: who is known to be the session's caller; else ``userdata.caller``; None where there is none."""
    for find in _finders:
        with suppress(LookupError):
            return find(context.session)
    try:
        caller: CallerLike | None = context.userdata.caller
    except Exception:  # there is none; or whatever a type of the program's raises, such as KeyError
        return None
    return caller


class CacheTools(llm.Toolset):
    """getRedisCacheStats, clearUserCache and invalidateCache.

    Args:
        caller: finds the caller in the run context, where neither a memory is attached to the session nor its userdata
            is an object with a ``caller``. The caller has ``user_id`` and ``operator``; None means that the caller is
            unknown.
    """

    def __init__(self, *, caller: Callable[[RunContext[Any]], CallerLike | None] = caller_of_session) -> None:
        super().__init__(id="cache_tools")
        self._caller = caller

    def _identify(self, context: RunContext[Any]) -> tuple[str | None, bool]:
        """The caller's user id (None: unknown or unusable), and whether the caller is an operator."""
        caller = self._caller(context)
        try:
            return keys.user_id(getattr(caller, "user_id", None)), getattr(caller, "operator", False) is True
        except keys.InvalidKeyPart:
            return None, False

    @function_tool(name="getRedisCacheStats", flags=ToolFlag.IGNORE_ON_ENTER)
    async def get_redis_cache_stats(self, context: RunContext[Any]) -> str:
        """Get statistics of the Redis cache: whether it is connected, hit rate, hits, misses, memory, health.

        Use it only when the person asks how the cache or its performance is doing. It changes nothing.
        """
        stats = await (await get_redis_cache()).get_stats()
        wanted = ("enabled", "connected", "hit_rate", "cache_hits", "cache_misses", "connection_errors", "redis_memory")
        return json.dumps({name: stats[name] for name in wanted} | {"status": status(stats)})

    @function_tool(name="clearUserCache", flags=ToolFlag.IGNORE_ON_ENTER)
    async def clear_user_cache(self, context: RunContext[Any]) -> str:
        """Clear all cached data of the person you are talking to. What they told you stays in the database.

        Use it when they ask to clear or refresh their cache, or say that what you know of them is out of date.
        Do not use it to forget something they told you: it deletes copies, not memories.
        """
        user_id, _ = self._identify(context)
        if user_id is None:
            return _result(False, 0, _UNKNOWN_CALLER)
        cache = await get_redis_cache()
        outcome = await cache.invalidate(keys.user_pattern(user_id), user_id=user_id)
        if not outcome.complete:
            return _result(False, outcome.deleted, _incomplete(cache, "clear", "not everything was cleared"))
        return _result(True, outcome.deleted, f"Cleared {outcome.deleted} cached entries for user {user_id}")

    @function_tool(name="invalidateCache", flags=ToolFlag.IGNORE_ON_ENTER)
    async def invalidate_cache(self, context: RunContext[Any], pattern: str) -> str:
        """Invalidate the cache entries whose keys match a pattern, so that they are read afresh.

        Use it only when the person names a pattern or a kind of entry. Otherwise use clearUserCache.

        Args:
            pattern: A Redis pattern such as user:*:profile, where * stands for any text and ? for one character.
        """
        user_id, operator = self._identify(context)
        if user_id is None and not operator:
            return _result(False, 0, _UNKNOWN_CALLER)
        cache = await get_redis_cache()
        try:
            outcome = await cache.invalidate(pattern, user_id=None if operator else user_id)
        except (TypeError, ValueError) as problem:
            return _result(False, 0, f"I cannot use that pattern: {problem}.")
        if not outcome.complete:
            return _result(False, outcome.deleted, _incomplete(cache, "invalidate", "not everything was invalidated"))
        return _result(True, outcome.deleted, f"Invalidated {outcome.deleted} cache entries matching '{pattern}'")


def status(stats: dict[str, Any]) -> str:
    """``disabled``, ``disconnected``, ``degraded`` (more than one request in a hundred failed) or ``healthy``."""
    if not stats["enabled"]:
        return "disabled"
    if not stats["connected"]:
        return "disconnected"
    return "degraded" if stats["connection_errors"] * 100 > stats["total_requests"] else "healthy"


def _result(success: bool, deleted: int, message: str) -> str:
    return json.dumps({"success": success, "deleted_keys": deleted, "message": message}, ensure_ascii=False)


def _incomplete(cache: RedisCache, verb: str, outcome: str) -> str:
    return _AWAY.format(outcome=outcome) if cache.enabled else _DISABLED.format(verb=verb)
